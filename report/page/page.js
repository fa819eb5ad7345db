"use strict";
// The page reads without this. It adds the slider, the buttons that copy, and opens what a link names.
(function () {
  function byId(id) { return document.getElementById(id); }
  function share(part, whole) { return whole ? (100 * part / whole).toFixed(1) + " %" : "–"; }
  function open() {
    var target = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  }
  function slider() {
    var values = JSON.parse(byId("values").textContent), input = byId("share");
    function show() {
      var step = values.steps[input.value];
      byId("share-shown").textContent = input.value + " %";
      byId("covered").textContent = step[0].toLocaleString("en") + " of " +
        values.rows.toLocaleString("en") + " (" + share(step[0], values.rows) + ")";
      byId("precise").textContent = share(step[1], step[0]);
      values.names.forEach(function (name, i) {
        var cells = byId("by-class").rows[i].cells, own = step[2][i];
        cells[1].textContent = own[0].toLocaleString("en");
        cells[2].textContent = share(own[1], own[0]);
        cells[3].textContent = share(own[1], values.held[i]);
      });
    }
    values.names.forEach(function (name) {
      var row = byId("by-class").insertRow(), head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.appendChild(head);
      row.insertCell(); row.insertCell(); row.insertCell();
    });
    input.addEventListener("input", show);
    byId("slider").hidden = false;
    show();
  }
  function copying(button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      navigator.clipboard.writeText(button.dataset.line + "\n").then(
        function () { button.textContent = "Copied"; },
        function () { button.textContent = "The browser refuses to copy"; });
    });
  }
  window.addEventListener("hashchange", open);
  open();
  if (byId("values")) slider();
  if (navigator.clipboard) document.querySelectorAll("button.copy").forEach(copying);
})();
