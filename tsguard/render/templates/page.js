// An addition only: everything on the page is readable without it.
(function () {
  var root = document.documentElement, filter = document.getElementById("filter"), theme = document.getElementById("theme");
  document.body.classList.add("scripted");
  if (theme) theme.addEventListener("click", function () {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  if (filter) filter.addEventListener("input", function () {
    var words = filter.value.toLowerCase();
    document.querySelectorAll("[data-text]").forEach(function (item) {
      item.hidden = words !== "" && item.dataset.text.toLowerCase().indexOf(words) < 0;
    });
  });
  document.querySelectorAll("th[data-sort]").forEach(function (head) {
    head.querySelector("button").addEventListener("click", function () {
      var body = head.closest("table").tBodies[0], at = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
      head.parentNode.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.from(body.rows).sort(function (a, b) {
        var x = a.cells[at].dataset.value || a.cells[at].textContent, y = b.cells[at].dataset.value || b.cells[at].textContent;
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
})();
