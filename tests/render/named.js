// What a screen reader or a keyboard would stumble over.
const said = e => (e.getAttribute('aria-label') || e.textContent || e.title || '').trim();
const bad = [];
if (!document.documentElement.lang) bad.push('no lang');
if (!document.title.trim()) bad.push('no title');
if (document.querySelectorAll('h1').length !== 1) bad.push('not one h1');
if (document.querySelectorAll('main').length !== 1) bad.push('not one main');
document.querySelectorAll('button, a[href], summary').forEach(e => said(e) || bad.push('nameless ' + e.outerHTML.slice(0, 80)));
document.querySelectorAll('input').forEach(e => (e.labels.length && said(e.labels[0])) || bad.push('unlabelled ' + e.outerHTML));
document.querySelectorAll('svg').forEach(e => {
  const label = e.getAttribute('aria-label') || (document.getElementById(e.getAttribute('aria-labelledby')) || {}).textContent;
  if (e.getAttribute('role') !== 'img' || !label) bad.push('nameless drawing');
});
document.querySelectorAll('table').forEach(t => t.querySelector('th[scope=col]') || bad.push('table without column heads'));
document.querySelectorAll('th').forEach(t => said(t) || bad.push('empty head in ' + t.closest('table').textContent.slice(0, 40)));
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
ids.forEach((id, at) => ids.indexOf(id) === at || bad.push('twice #' + id));
let level = 0;
document.querySelectorAll('h1, h2, h3, h4').forEach(h => { const n = +h.tagName[1];
  if (n > level + 1 && level) bad.push('heading jumps to ' + h.textContent); level = n; });
document.querySelectorAll('.wide, .plot').forEach(e => e.tabIndex === 0 || bad.push('scrolls without the keyboard'));
return bad;
