// Pages that are opened from a disk may start no worker, and the search is one: there an invisible frame runs its script.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { hidden: true }));
      const inside = frame.contentWindow;
      this.inside = inside;
      this.ready = new Promise((loaded) => { window[`loaded-${url}`] = loaded; });
      inside.done = () => window[`loaded-${url}`]();
      inside.send = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inside.document.write(`<script>postMessage = (data) => send(data);</script><script src="${url}"></script><script>done();</script>`);
      inside.document.close();
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() { this.inside.frameElement.remove(); }
  };
}
