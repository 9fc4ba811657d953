// Every visible text whose contrast with the ground behind it is below the first argument.
const visible = e => e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden';
const parse = c => { const n = c.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat([1]);
const light = c => { const l = c.slice(0, 3).map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
const ground = e => { const layers = []; for (let at = e; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((below, one) => over(one, below), [255, 255, 255, 1]); };
const bad = [];
document.querySelectorAll('body *').forEach(e => {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !visible(e) || ['SCRIPT', 'STYLE'].includes(e.tagName)) return;
  const style = getComputedStyle(e), back = ground(e);
  const ink = over(parse(e.closest('svg') && style.fill !== 'none' ? style.fill : style.color), back);
  const a = light(ink), b = light(back), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < arguments[0]) bad.push(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2) + ' ' + e.textContent.trim().slice(0, 30));
});
return bad;
