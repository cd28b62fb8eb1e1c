// Runs in every page before its own scripts: numbers for elements, a text of what is shown, and a
// clock that starts at a given time.
(() => {
  "use strict";
  if (window.agentgym) return;
  const RealDate = Date;
  let shift = 0;
  class PageDate extends RealDate {
    constructor(...given) {
      if (given.length) super(...given);
      else super(RealDate.now() + shift);
    }
    static now() {
      return RealDate.now() + shift;
    }
  }
  window.Date = PageDate;
  window.open = () => null;

  const numbers = new WeakMap();
  const elements = new Map();
  let next = 1;
  const number = (element) => {
    if (!numbers.has(element)) {
      numbers.set(element, next);
      elements.set(next, new WeakRef(element));
      next += 1;
    }
    return numbers.get(element);
  };

  const HIDDEN = new Set(["SCRIPT", "STYLE", "NOSCRIPT", "TEMPLATE", "HEAD", "META", "LINK"]);
  const SHAPES = new Set(["circle", "rect", "polygon", "ellipse", "line", "path", "text"]);
  const ROLES = {
    A: "link", BUTTON: "button", SELECT: "combobox", TEXTAREA: "textbox", OPTION: "option",
    IMG: "image", LABEL: "label", H1: "heading", H2: "heading", H3: "heading", TH: "cell",
    TD: "cell", LI: "item", CANVAS: "canvas",
  };
  const INPUTS = {
    checkbox: "checkbox", radio: "radio", submit: "button", button: "button", reset: "button",
    range: "slider", number: "spinbutton", image: "button",
  };
  const clean = (text) => text.replace(/\s+/g, " ").trim();
  const lower = (text) => text.toLowerCase();
  const quoted = (text) => (text ? ` "${clean(text).replace(/"/g, "'")}"` : "");

  const visible = (element) => {
    if (HIDDEN.has(element.tagName)) return false;
    const style = getComputedStyle(element);
    if (style.display === "none" || style.visibility === "hidden" || style.opacity === "0") {
      return false;
    }
    const box = element.getBoundingClientRect();
    return (box.width > 0 && box.height > 0) || element.childElementCount > 0;
  };
  const role = (element) => {
    const tag = element.tagName;
    if (element.getAttribute("role")) return element.getAttribute("role");
    if (tag === "INPUT") return INPUTS[element.type] || "textbox";
    return ROLES[tag] || tag.toLowerCase();
  };
  const shape = (element) => {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    const fill = element.getAttribute("fill") || style.fill;
    const middle = [box.left + box.width / 2, box.top + box.height / 2].map(Math.round);
    const size = [box.width, box.height].map(Math.round);
    const colour = fill && fill !== "none" ? ` ${fill}` : "";
    return `${element.tagName}${quoted(element.textContent)}${colour} at ${middle.join(",")} ` +
      `size ${size.join("x")}`;
  };
  const filled = (element) => {
    const seen = getComputedStyle(element).backgroundColor;
    const clear = seen === "transparent" || /^rgba\(.*, 0\)$/.test(seen);
    return clear ? "" : element.style.backgroundColor || seen;
  };
  const framed = (element) => {
    const style = getComputedStyle(element);
    return style.borderTopStyle !== "none" && parseFloat(style.borderTopWidth) > 0;
  };
  const picture = (element) => {
    const file = /url\("[^"]*?([^"/]*)"\)/.exec(getComputedStyle(element).content);
    return file ? file[1].replace(/\.\w+$/, "").slice(0, 40) : "";
  };
  const box = (element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    const [x, y, right, down] = [left + width / 2, top + height / 2, width, height].map(Math.round);
    const looks = [quoted(picture(element)).trim(), filled(element)].filter(Boolean).join(" ");
    return `${role(element)}${looks && ` ${looks}`} at ${x},${y} size ${right}x${down}`;
  };
  const labelled = (element) => {
    const label = element.labels && element.labels[0];
    if (!label) return "";
    const texts = [...label.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    return clean(texts.map((node) => node.data).join(" ") || label.textContent);
  };
  const names = new Map();
  const described = (element) => {
    if (SHAPES.has(element.tagName)) return shape(element);
    const kind = role(element);
    const style = getComputedStyle(element);
    const marks = [];
    let name = element.getAttribute("aria-label") || element.getAttribute("alt") || "";
    if (element instanceof HTMLInputElement) {
      if (["checkbox", "radio"].includes(element.type)) {
        marks.push(element.checked ? "checked" : "unchecked");
      } else if (kind === "button") name = name || element.value;
      else marks.push(`value "${element.value}"`);
      name = name || element.placeholder || labelled(element);
    } else if (element instanceof HTMLTextAreaElement) {
      name = name || element.placeholder || labelled(element);
      marks.push(`value "${element.value}"`);
    }
    else if (element instanceof HTMLSelectElement) {
      name = name || labelled(element);
      const options = [...element.options].map((option) => `"${clean(option.text)}"`);
      marks.push(`value "${clean(element.selectedOptions[0]?.text || "")}"`);
      marks.push(`options ${options.slice(0, 50).join(", ")}`);
    } else name = name || clean(element.textContent);
    names.set(number(element), clean(name));
    if (style.position === "absolute") {
      const box = element.getBoundingClientRect();
      marks.push(`at ${[box.left + box.width / 2, box.top + box.height / 2].map(Math.round)}`);
    }
    if (element === document.activeElement) marks.push("focused");
    if (element.disabled) marks.push("disabled");
    if (element.getAttribute("aria-expanded")) {
      marks.push(element.getAttribute("aria-expanded") === "true" ? "expanded" : "collapsed");
    }
    return kind + quoted(name) + (marks.length ? ` (${marks.join(", ")})` : "");
  };
  const STEPS = [0.5, 0.25, 0.75, 0.1, 0.9];
  const PLACES = STEPS.flatMap((down) => STEPS.map((right) => [right, down]));
  const WHOLE = new Set(["A", "BUTTON", "SELECT", "OPTION", "TEXTAREA", "INPUT", "IMG", "CANVAS"]);

  const WIDGETS = new Set(["button", "checkbox", "link", "menuitem", "menuitemcheckbox",
    "menuitemradio", "option", "radio", "switch", "tab", "treeitem"]);
  const INSIDE = "a, button, select, textarea, input, [role], [tabindex]";
  const widget = (element) => WIDGETS.has(element.getAttribute("role"))
    && clean(element.textContent) !== "" && element.querySelector(INSIDE) === null;

  const lines = (element, out, seen, { hidden, boxes }) => {
    if (!visible(element) || (hidden && element.matches(hidden))) return;
    const inner = [...element.childNodes].filter(
      (node) => node.nodeType === Node.ELEMENT_NODE
        || (node.nodeType === Node.TEXT_NODE && clean(node.data)));
    const leaf = inner.every((node) => node.nodeType === Node.TEXT_NODE);
    const { width, height } = element.getBoundingClientRect();
    const drawn = width > 0 && height > 0;
    const show = (text) => {
      const id = number(element);
      seen.push(id);
      out.push(`[${id}] ${text}`);
    };
    const named = WHOLE.has(element.tagName) || SHAPES.has(element.tagName) || widget(element)
      || (leaf && drawn && (inner.length || element.tabIndex >= 0))
      || (leaf && drawn && getComputedStyle(element).cursor === "pointer");
    if (named) {
      show(described(element));
      return;
    }
    const before = out.length;
    for (const node of inner) {
      if (node.nodeType === Node.TEXT_NODE) out.push(clean(node.data));
      else lines(node, out, seen, { hidden, boxes });
    }
    const empty = drawn && out.length === before && element !== document.body;
    if (boxes && empty && (filled(element) || framed(element) || picture(element))) show(box(element));
  };

  window.agentgym = {
    setTime: (time) => { shift = time - RealDate.now(); },
    find: (name) => {
      const wanted = clean(name);
      const same = [(known) => known === wanted, (known) => lower(known) === lower(wanted)];
      for (const fits of same) for (const [id, known] of names) if (fits(known)) return id;
      return null;
    },
    snapshot: (options) => {
      names.clear();
      const out = [];
      const seen = [];
      lines(document.body, out, seen, options);
      return { text: out.join("\n"), elements: seen };
    },
    center: (id) => {
      const element = elements.get(id)?.deref();
      if (!element || !element.isConnected || !visible(element)) return null;
      let box = element.getBoundingClientRect();
      if (box.top < 0 || box.bottom > innerHeight || box.left < 0 || box.right > innerWidth) {
        element.scrollIntoView({ block: "center", inline: "center" });
        box = element.getBoundingClientRect();
      }
      // The middle, or where that is covered another point at which the element is on top.
      for (const [right, down] of PLACES) {
        const [x, y] = [box.left + box.width * right, box.top + box.height * down];
        const top = document.elementFromPoint(x, y);
        if (top && (element.contains(top) || top.contains(element))) return [x, y];
      }
      return [box.left + box.width / 2, box.top + box.height / 2];
    },
    clear: () => {
      const element = document.activeElement;
      if (!element || !("value" in element)) return false;
      element.select?.();
      return true;
    },
    choose: (id, text) => {
      const element = elements.get(id)?.deref();
      if (!(element instanceof HTMLSelectElement)) return false;
      const option = [...element.options].find((each) => clean(each.text) === clean(text));
      if (!option) return false;
      element.value = option.value;
      option.selected = true;
      for (const kind of ["input", "change"]) {
        element.dispatchEvent(new Event(kind, { bubbles: true }));
      }
      return true;
    },
  };
})();
