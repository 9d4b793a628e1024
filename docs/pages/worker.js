// Browsers start no worker from a file. The search then runs in a hidden frame.
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) =>
        this.dispatchEvent(new MessageEvent("message", {data}));
      const load = (address) => new Promise((done) => {
        const script = inner.document.createElement("script");
        script.src = address;
        script.onload = done;
        inner.document.head.append(script);
      });
      inner.importScripts = (...addresses) => addresses.reduce(
        (before, address) => before.then(() => load(address)),
        Promise.resolve());
      this.frame = frame;
      this.loaded = load(url);
    }

    postMessage(data) {
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(
        new MessageEvent("message", {data})));
    }

    terminate() {
      this.frame.remove();
    }
  };
