// Search in pages opened as files: browsers start no workers there, so the worker's script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      this.frame = Object.assign(document.createElement("iframe"), { hidden: true, srcdoc: "<body></body>" });
      this.frame.addEventListener("load", () => this.start(new URL(address, location).href), { once: true });
      document.documentElement.append(this.frame);
    }

    start(address) {
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => setTimeout(() => this.tell(data)); // later, as a worker answers
      const script = this.inside.document.createElement("script");
      script.onload = () => {
        this.ready = true;
        this.waiting.forEach((data) => this.postMessage(data));
      };
      script.src = address;
      this.inside.document.body.append(script);
    }

    tell(data) {
      const message = new MessageEvent("message", { data: structuredClone(data) });
      if (this.onmessage) this.onmessage(message);
      this.dispatchEvent(message);
    }

    postMessage(data) {
      if (!this.ready) this.waiting.push(data);
      else this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data: this.inside.structuredClone(data) }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
