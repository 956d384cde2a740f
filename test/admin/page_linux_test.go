package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// desktop and phone are how the page is mostly shown.
var (
	desktop = look{width: 1360, height: 800, scheme: "light"}
	phone   = look{width: 375, height: 800, scheme: "light"}
)

// The tests with a browser are not parallel: one Chromium is enough for a small machine.

// crash has a worker exit with status 3.
func (s *running) crash() {
	a, err := http.Get("http://" + s.listen + "/crash")
	if err == nil {
		a.Body.Close()
	}
}

// busy has requests answered until the end of the test.
func (s *running) busy() {
	stop, done := make(chan struct{}), make(chan struct{})
	c, once := http.Client{Transport: &http.Transport{}}, http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				c.CloseIdleConnections()
				return
			case <-time.After(5 * time.Millisecond):
			}
			ask := &once
			if i%4 == 0 {
				ask = &c
			}
			if a, err := ask.Get("http://" + s.listen); err == nil {
				a.Body.Close()
			}
		}
	}()
	s.t.Cleanup(func() { close(stop); <-done })
}

const rows = `[...document.querySelectorAll("table.workers tbody tr")]`

// TestPage: the page shows each slot, and then a death and a reload without being loaded
// again, and what has the focus keeps it. Nothing offends its policy.
func TestPage(t *testing.T) {
	b := browse(t)
	s := run(t)
	p := b.open("http://"+s.address, desktop)
	p.until(rows + `.length === 2 && ` + rows + `.every((r) => r.cells[3].innerText === "ready")`)
	for slot, w := range s.stats().Workers {
		require.Equal(t, fmt.Sprintf(`"%d %d %d ready 1"`, slot, w.ID, w.PID), p.eval(fmt.Sprintf(`[...%s[%d].cells].slice(0, 5).map((c) => c.innerText).join(" ")`, rows, slot)))
	}
	require.Equal(t, `["Workers","Listeners"]`, p.eval(`[...document.querySelectorAll("caption")].map((c) => c.innerText).slice(0, 2)`))
	require.Contains(t, p.text(`document.querySelectorAll("table")[1].innerText`), s.listen)
	p.until(`document.querySelector("#link").innerText === "live"`)
	p.until(rows + `.every((r) => r.cells[8].innerText !== "–")`) // the second look tells rates

	p.eval(`window.same = 1; document.querySelectorAll("[tabindex='0']")[0].focus()`)
	s.crash()
	p.until(`document.querySelector("table.events").innerText.includes("crash: exit status 3 after ")`)
	p.until(rows + `.some((r) => r.cells[15].innerText.startsWith("exit status 3 after ") && r.cells[14].innerText === "1" && r.cells[3].innerText === "ready")`)
	p.until(`document.querySelector("#said").innerText.includes(", death, crash, exit status 3")`) // what a screen reader says

	s.order("/reload")
	p.until(`document.querySelector("#reload")?.innerText.startsWith("The last reload replaced 2 of 2 workers in ")`)
	p.until(rows + `.length === 2 && ` + rows + `.every((r) => r.cells[4].innerText === "2")`)
	require.Equal(t, "1", p.eval(`window.same`), "the page was loaded again")
	require.Equal(t, "0", p.eval(`[...document.querySelectorAll("[tabindex='0']")].indexOf(document.activeElement)`))
	require.Empty(t, b.complaints())

	s.order("/stop")
	p.until(`document.querySelector("#link").className === "lost"`)
}

// TestPageWithoutScripts: then it is loaded again every few seconds.
func TestPageWithoutScripts(t *testing.T) {
	b := browse(t)
	s := run(t)
	l := desktop
	l.noScripts = true
	p := b.open("http://"+s.address, l)
	require.Contains(t, p.text(`document.querySelector("#link").innerText`), "anew every 5 s")
	s.crash()
	p.until(`document.querySelector("table.events").innerText.includes("crash: exit status 3 after ")`)
	p.until(rows + `.every((r) => r.cells[8].innerText !== "–")`)
	require.Empty(t, b.complaints())
}

// contrasts are the texts of the page whose contrast is less than WCAG's 4.5.
const contrasts = `(() => {
	const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgb = (color) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1); return [...paint.getImageData(0, 0, 1, 1).data]; };
	const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const bad = new Set();
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.closest(".unseen, .skip, script")) continue;
		let behind = e, back;
		do back = rgb(getComputedStyle(behind).backgroundColor); while (back[3] < 255 && (behind = behind.parentElement));
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(back)].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 4.5) bad.add(e.tagName + "." + e.className + " " + ((a + 0.05) / (b + 0.05)).toFixed(2));
	}
	return [...bad].join("; ");
})()`

// TestPageLooks: it can be read in both schemes, and on a phone without moving it
// sideways. With SCREENSHOTS=../../docs/img it makes the pictures of docs.
func TestPageLooks(t *testing.T) {
	b := browse(t)
	broken := filepath.Join(clustertest.TempDir(t), "broken")
	s := run(t, "WORKERS=4", "BROKEN="+broken)
	s.busy()
	p := b.open("http://"+s.address, desktop)
	p.until(rows + `.length === 4 && ` + rows + `.every((r) => r.cells[3].innerText === "ready")`)
	s.crash()
	p.until(`document.querySelector("table.events").innerText.includes("crash: exit status 3 after ")`)
	s.order("/reload")
	p.until(rows + `.every((r) => Number(r.cells[8].innerText) > 0)`)
	p.until(`document.querySelectorAll(".fresh").length === 0`)
	backgrounds := make(map[string]bool)
	for _, scheme := range []string{"light", "dark"} {
		if scheme == "dark" {
			s.order("/workers/3/drain")
			require.NoError(t, os.WriteFile(broken, nil, 0o600))
			s.ordered("/reload", http.StatusConflict)
			p.until(rows + `.some((r) => r.cells[3].innerText === "off")`)
			p.until(`document.querySelector("#reload").innerText.includes("unknown key")`)
			p.until(`document.querySelectorAll(".fresh").length === 0`)
		}
		for name, l := range map[string]look{"page": desktop, "phone": phone} {
			l.scheme = scheme
			p.show(l)
			p.until(fmt.Sprintf(`matchMedia("(prefers-color-scheme: %s)").matches && innerWidth === %d`, scheme, l.width))
			require.Equal(t, "true", p.eval(`document.documentElement.scrollWidth <= innerWidth`), "%v: %s", l, p.eval(`document.documentElement.scrollWidth`))
			require.Empty(t, p.text(contrasts), "%v", l)
			p.picture(name+"-"+scheme, map[string]int{"page": 860, "phone": 900}[name])
		}
		backgrounds[p.eval(`getComputedStyle(document.body).backgroundColor`)] = true
	}
	require.Len(t, backgrounds, 2)
	for _, width := range []int{320, 761, 1024} {
		p.show(look{width: width, height: 800, scheme: "dark"})
		p.until(fmt.Sprintf(`innerWidth === %d`, width))
		require.Equal(t, "true", p.eval(`document.documentElement.scrollWidth <= innerWidth`), width)
	}
	require.Empty(t, b.complaints())
}

// TestPageHostile: what a worker says is text on the page, whatever it is, and what does not
// print is escaped.
func TestPageHostile(t *testing.T) {
	b := browse(t)
	s := run(t)
	p := b.open("http://"+s.address, desktop)
	_, err := clustertest.Get("http://" + s.listen + "/hostile")
	require.NoError(t, err)
	p.until(`document.querySelector("table.events").innerText.includes("<img src=x onerror=alert(1)>")`)
	p.until(`document.querySelector("table.workers").innerText.includes("</td><script>alert(1)</script>")`)
	text := p.text(`document.body.innerText`)
	for _, odd := range []string{`\x1b`, `\u009b`, `\u202e`} {
		require.Contains(t, text, odd)
	}
	require.NotContains(t, text, "\x1b")
	require.NotContains(t, text, "\u202e")
	require.Equal(t, "0", p.eval(`document.querySelectorAll("main img, main script").length`))
	require.Empty(t, b.complaints())
}

// stats are the master's.
func (s *running) stats() (st struct{ Workers []struct{ ID, PID int } }) {
	s.t.Helper()
	text, err := clustertest.Get("http://" + s.address + "/stats")
	require.NoError(s.t, err)
	require.NoError(s.t, json.Unmarshal([]byte(text), &st))
	return st
}
