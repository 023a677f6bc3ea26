// The page's only script: tables that sort, filter and copy. It reads the page and nothing else:
// no network, no storage, no evaluation of text, and markup is only made with createElement.
"use strict";

const text = (cell) => cell.textContent.trim().replace(/\u00a0/g, " ");
const amount = (cell) => (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v));

function key(row, at) {
  const cell = row.cells[at];
  const number = amount(cell);
  if (!Number.isNaN(number)) return number;
  const words = text(cell);
  return words !== "" && !Number.isNaN(Number(words)) ? Number(words) : words;
}

function compare(a, b) {
  // Numbers before words.
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

// Lines beyond the first are out of sight until one asks for them: the browser lays out what it shows.
const MOST = 100;

function cut(table) {
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    shown += !row.hidden;
    row.classList.toggle("beyond", shown > MOST && table.dataset.whole === undefined);
  }
  const more = table.closest(".wide").previousElementSibling.querySelector(".more");
  if (more) {
    more.hidden = shown <= MOST || table.dataset.whole !== undefined;
    more.textContent = `show all ${shown} lines`;
  }
}

function sort(table, at, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) {
    if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  }
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = Array.from(table.tBodies[0].rows, (row) => [key(row, at), row]);
  const unknown = (value) => value === "–" || value === "";
  rows.sort(([a], [b]) => {
    // What is unknown comes last, whichever way is sorted.
    if (unknown(a) !== unknown(b)) return unknown(a) ? 1 : -1;
    return down ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  cut(table);
}

function filter(table, wanted, count) {
  // Every word must occur; a word with a minus before it must not.
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const all = text(row).toLowerCase() + " " + (row.dataset.find || "");
    const fits = words.every((word) =>
      word.startsWith("-") && word.length > 1 ? !all.includes(word.slice(1)) : all.includes(word));
    row.hidden = !fits;
    shown += fits;
  }
  count.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length} lines` : "";
  cut(table);
}

const lines = (table) =>
  [table.tHead.rows[0], ...Array.from(table.tBodies[0].rows).filter((row) => !row.hidden)].map(
    (row) => Array.from(row.cells).filter((cell) => !cell.classList.contains("links")).map(text));

// A cell that begins like a formula would be computed by a spreadsheet.
const plain = (words) => !Number.isNaN(Number(words.replace(/ ?[%×]$/, "")));
const safe = (words) => (/^[=+\-@\t\r]/.test(words) && !plain(words) ? `'${words}` : words);
const quoted = (words) => (/[",\n]/.test(words) ? `"${words.replace(/"/g, '""')}"` : words);
const csv = (words) => quoted(safe(words));
const SIGNS = {
  "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_",
  "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "$<$",
  ">": "$>$", "×": "$\\times$", "±": "$\\pm$", "–": "--", "µ": "$\\mu$", "…": "\\dots{}",
  "≈": "$\\approx$", "·": "$\\cdot$", "“": "``", "”": "''",
};
const latex = (words) => Array.from(words, (sign) => SIGNS[sign] || sign).join("");
const FORMS = {
  CSV: (rows) => rows.map((row) => row.map(csv).join(",")).join("\n") + "\n",
  Markdown: (rows) => {
    const line = (row) => "| " + row.map((cell) => cell.replace(/\|/g, "\\|")).join(" | ") + " |";
    return [line(rows[0]), line(rows[0].map(() => "---")), ...rows.slice(1).map(line)].join("\n") + "\n";
  },
  LaTeX: (rows, table) => {
    const form = Array.from(table.tHead.rows[0].cells).filter((cell) => !cell.classList.contains("links"))
      .map((cell) => (cell.classList.contains("number") ? "r" : "l")).join("");
    const line = (row) => row.map(latex).join(" & ") + " \\\\";
    return ["\\begin{tabular}{" + form + "}", "\\toprule", line(rows[0]), "\\midrule",
      ...rows.slice(1).map(line), "\\bottomrule", "\\end{tabular}"].join("\n") + "\n";
  },
};

function copy(words, button) {
  const done = (ok) => {
    const before = button.dataset.label;
    button.textContent = ok ? "copied" : "select and copy";
    setTimeout(() => { button.textContent = before; }, 1200);
  };
  // A page that was opened from disk may lack the clipboard's interface.
  const fallback = () => {
    const area = document.createElement("textarea");
    area.value = words;
    document.body.append(area);
    area.select();
    const ok = document.execCommand("copy");
    area.remove();
    done(ok);
  };
  if (navigator.clipboard) navigator.clipboard.writeText(words).then(() => done(true), fallback);
  else fallback();
}

function enliven(table) {
  const tools = document.createElement("div");
  tools.className = "tools";
  if (table.tBodies[0].rows.length > 8) {
    const box = document.createElement("input");
    box.type = "search";
    box.placeholder = "filter: words, -without";
    box.setAttribute("aria-label", "filter the lines of this table");
    const count = document.createElement("span");
    count.className = "soft";
    count.setAttribute("role", "status");
    box.addEventListener("input", () => filter(table, box.value, count));
    tools.append(box, count);
  }
  for (const [name, form] of Object.entries(FORMS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = button.dataset.label = `copy ${name}`;
    button.addEventListener("click", () => copy(form(lines(table), table), button));
    tools.append(button);
  }
  if (table.tBodies[0].rows.length > MOST) {
    const more = document.createElement("button");
    more.type = "button";
    more.className = "more";
    more.addEventListener("click", () => { table.dataset.whole = ""; cut(table); });
    tools.append(more);
  }
  table.closest(".wide").before(tools);
  cut(table);
  Array.from(table.tHead.rows[0].cells).forEach((heading, at) => {
    if (heading.classList.contains("links")) return;
    heading.tabIndex = 0;
    heading.setAttribute("aria-sort", "none");
    heading.addEventListener("click", () => sort(table, at, heading));
    heading.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(table, at, heading);
    });
  });
}

document.querySelectorAll("table").forEach(enliven);

// A link to a line that is inside of a closed table opens it; so does printing.
const open = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const fold = target && target.closest("details");
  if (fold) { fold.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
addEventListener("beforeprint", () => document.querySelectorAll("details.print").forEach((fold) => { fold.open = true; }));
open();
