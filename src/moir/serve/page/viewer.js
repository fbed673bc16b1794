// Before and after at full resolution, with a divider for mouse, touch and keyboard.

const make = (tag, name, text = "") => Object.assign(document.createElement(tag), { className: name, textContent: text });
const ZOOMS = [["Fit", 0], ["100%", 1], ["200%", 2], ["400%", 4]];

export class Viewer {
  constructor(parent, left = "Before", right = "After") {
    this.place = 0.5;
    this.zoom = 0;
    this.size = null;
    this.root = make("figure", "viewer");
    this.view = make("div", "view");
    this.frame = make("div", "frame");
    this.frame.tabIndex = 0;
    this.frame.setAttribute("role", "group");
    this.stage = make("div", "stage");
    this.before = Object.assign(make("img", "before"), { alt: `${left}`, draggable: false });
    this.after = Object.assign(make("img", "after"), { alt: `${right}`, draggable: false });
    this.stage.append(this.before, this.after);
    this.frame.append(this.stage);
    this.bar = make("div", "bar");
    this.bar.setAttribute("aria-hidden", "true"); // the range below is the control for keyboards and screen readers
    this.view.append(this.frame, this.bar, make("span", "tag left", left), make("span", "tag right", right));
    const tools = make("div", "tools");
    this.range = Object.assign(make("input", "divider-range"), { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
    this.range.setAttribute("aria-label", `Divider between ${left.toLowerCase()} and ${right.toLowerCase()}`);
    const zooms = make("div", "zooms");
    zooms.setAttribute("role", "group");
    zooms.setAttribute("aria-label", "Zoom");
    this.buttons = ZOOMS.map(([label, zoom]) => {
      const button = Object.assign(make("button", "", label), { type: "button" });
      button.addEventListener("click", () => this.setZoom(zoom));
      zooms.append(button);
      return [button, zoom];
    });
    tools.append(this.range, zooms);
    this.root.append(this.view, tools);
    parent.append(this.root);

    this.range.addEventListener("input", () => this.move(this.range.value / 100));
    this.frame.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(this.view);
    addEventListener("resize", () => this.layout());
    this.drag(this.bar, (event) => this.moveTo(event));
    this.drag(this.frame, (event) => (this.zoom ? this.pan(event) : this.moveTo(event)), (event) => this.zoom && event.pointerType !== "mouse");
  }

  async show(before, after) {
    this.urls?.forEach((url) => URL.revokeObjectURL(url));
    this.urls = [before, after].map((blob) => URL.createObjectURL(blob));
    [this.before.src, this.after.src] = this.urls;
    await Promise.all([this.before.decode(), this.after.decode()]);
    this.size = [this.after.naturalWidth, this.after.naturalHeight];
    this.layout();
  }

  drag(target, act, skip = () => false) {
    target.addEventListener("pointerdown", (event) => {
      if (event.button || skip(event)) return;
      target.setPointerCapture(event.pointerId);
      this.last = event;
      act(event);
      const go = (next) => { act(next); this.last = next; };
      target.addEventListener("pointermove", go);
      const end = () => target.removeEventListener("pointermove", go);
      target.addEventListener("pointerup", end, { once: true });
      target.addEventListener("pointercancel", end, { once: true });
    });
  }

  moveTo(event) {
    const box = this.frame.getBoundingClientRect();
    this.move((event.clientX - box.left) / this.frame.clientWidth);
  }

  pan(event) {
    this.frame.scrollLeft -= event.clientX - this.last.clientX;
    this.frame.scrollTop -= event.clientY - this.last.clientY;
  }

  move(place) {
    this.place = Math.min(1, Math.max(0, place));
    this.range.value = this.place * 100;
    this.draw();
  }

  setZoom(zoom) {
    // The middle of what is seen stays the middle.
    const { frame, stage } = this;
    const x = (frame.scrollLeft + frame.clientWidth / 2) / Math.max(1, stage.offsetWidth);
    const y = (frame.scrollTop + frame.clientHeight / 2) / Math.max(1, stage.offsetHeight);
    this.zoom = zoom;
    this.layout();
    frame.scrollLeft = x * stage.offsetWidth - frame.clientWidth / 2;
    frame.scrollTop = y * stage.offsetHeight - frame.clientHeight / 2;
    this.draw();
  }

  layout() {
    for (const [button, zoom] of this.buttons) button.setAttribute("aria-pressed", String(zoom === this.zoom));
    if (!this.size || !this.view.clientWidth) return;
    const [width, height] = this.size;
    this.frame.classList.toggle("zoomed", this.zoom > 0);
    const room = Math.min(innerHeight * 0.7, 900);
    // 100%: one pixel of the picture on one pixel of the screen.
    const fit = Math.min(this.view.clientWidth / width, room / height);
    const scale = this.zoom ? this.zoom / devicePixelRatio : fit;
    this.frame.classList.toggle("pixels", scale * devicePixelRatio >= 2);
    this.stage.style.width = `${width * scale}px`;
    this.stage.style.height = `${height * scale}px`;
    this.frame.setAttribute("aria-label", `Picture, ${width} by ${height} pixels`);
    this.draw();
  }

  draw() {
    const at = this.place * this.frame.clientWidth;
    const inStage = at + this.frame.scrollLeft - this.stage.offsetLeft;
    this.after.style.clipPath = `inset(0 0 0 ${Math.max(0, inStage)}px)`;
    this.before.style.clipPath = `inset(0 ${Math.max(0, this.stage.offsetWidth - inStage)}px 0 0)`; // transparency must not show the other
    this.bar.style.left = `${at}px`;
  }
}
