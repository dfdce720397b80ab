// Search runs in a Worker, which browsers refuse to a page from the disk (file://). There, an iframe takes its place.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      this.queue = []
      const inner = this.frame.contentWindow
      inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inner.importScripts = (...sources) => Promise.all(sources.map(source => load(inner.document, source)))
      load(inner.document, url).then(() => {
        this.queue.forEach(data => this.postMessage(data))
        this.queue = null
      })
    }
    postMessage(data) {
      if (this.frame.contentWindow && !this.queue)
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      else this.queue?.push(data)
    }
    terminate() {
      this.frame.remove()
    }
  }
  const load = (page, source) =>
    new Promise((done, failed) => {
      const script = page.createElement("script")
      Object.assign(script, { src: source, onload: done, onerror: failed })
      page.body.append(script)
    })
}
