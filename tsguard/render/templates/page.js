// An addition only: everything on the page is readable without it.
(function () {
  var root = document.documentElement, filter = document.getElementById("filter"), theme = document.getElementById("theme");
  var shown = document.getElementById("shown");
  document.body.classList.add("scripted");
  if (theme) theme.addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  if (filter) filter.addEventListener("input", function () {
    var words = filter.value.trim().toLowerCase(), items = document.querySelectorAll("[data-text]"), left = 0;
    items.forEach(function (item) {
      item.hidden = words !== "" && item.dataset.text.toLowerCase().indexOf(words) < 0;
      if (!item.hidden) left += 1;
      var fold = item.closest("details");
      if (words !== "" && !item.hidden && fold) fold.open = true;
    });
    if (shown) shown.textContent = words === "" ? "" : left + " of " + items.length + " shown.";
  });
  // A link into a folded part unfolds it; what is folded is printed too.
  function unfold() {
    var place = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    var fold = place && place.closest("details");
    if (fold) { fold.open = true; place.scrollIntoView(); }
  }
  addEventListener("hashchange", unfold);
  unfold();
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (fold) { fold.open = true; });
  });
  document.querySelectorAll("[data-copy]").forEach(function (box) {
    var from = box.querySelector("p") || box, words = from.textContent, button = document.createElement("button");
    button.type = "button"; button.className = "copy"; button.textContent = "Copy";
    button.addEventListener("click", function () {
      var done = function () { button.textContent = "Copied"; };
      if (navigator.clipboard) navigator.clipboard.writeText(words).then(done, function () { getSelection().selectAllChildren(from); });
      else getSelection().selectAllChildren(from);
    });
    box.insertBefore(button, box.firstChild);
  });
  document.querySelectorAll("th[data-sort]").forEach(function (head) {
    var button = document.createElement("button");
    button.type = "button"; button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", function () {
      var body = head.closest("table").tBodies[0], at = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
      head.parentNode.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.from(body.rows).map(function (row) {
        var cell = row.cells[at];
        return { row: row, value: "value" in cell.dataset ? cell.dataset.value : cell.textContent };
      }).sort(function (a, b) {
        // Rows without a value stay at the end, whichever way the others go.
        if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "");
        var order = isNaN(a.value) || isNaN(b.value) ? a.value.localeCompare(b.value) : a.value - b.value;
        return up ? order : -order;
      }).forEach(function (one) { body.appendChild(one.row); });
    });
  });
})();
