package admin_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// browser is a headless Chromium, which is driven over a pair of pipes by its DevTools
// protocol: JSON, each message with a zero byte behind it.
type browser struct {
	t    *testing.T
	mu   sync.Mutex
	to   io.WriteCloser
	last int                          // number of the last call
	wait map[int]chan json.RawMessage // calls that are not answered
	bad  []string                     // what pages have complained about
	gone chan struct{}                // closed when it has ended
}

// devToolsMessage is one in either direction.
type devToolsMessage struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
}

// browse starts one.
func browse(t *testing.T) *browser {
	t.Helper()
	home, err := os.MkdirTemp("", "chromium")
	require.NoError(t, err)
	c := exec.Command(needs(t, "chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-breakpad",
		"--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-proxy-server", "--hide-scrollbars",
		"--user-data-dir="+filepath.Join(home, "profile"), "--remote-debugging-pipe", "about:blank")
	c.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	theirIn, in, err := os.Pipe()
	require.NoError(t, err)
	out, theirOut, err := os.Pipe()
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(home, "log"))
	require.NoError(t, err)
	c.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, c.Start())
	for _, f := range []*os.File{theirIn, theirOut, log} {
		f.Close()
	}
	b := &browser{t: t, to: in, wait: make(map[int]chan json.RawMessage), gone: make(chan struct{})}
	go b.read(out)
	t.Cleanup(func() {
		in.Close() // which ends it
		select {
		case <-b.gone:
		case <-time.After(clustertest.Patience):
		}
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
		out.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s", regexp.MustCompile(`(?m)^.*dbus.*\n`).ReplaceAll(text, nil)) // which there is none of
		}
		for range 10 { // a process of its that ends may still write
			if os.RemoveAll(home) == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return b
}

// read reads what the browser says.
func (b *browser) read(from io.Reader) {
	defer close(b.gone)
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m devToolsMessage
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if answer := b.wait[m.ID]; m.ID != 0 && answer != nil {
			delete(b.wait, m.ID)
			if m.Error != nil {
				b.bad = append(b.bad, string(m.Error))
			}
			answer <- m.Result
		} else if text := complaint(m); text != "" {
			b.bad = append(b.bad, text)
		}
		b.mu.Unlock()
	}
}

// complaint is what a page has to complain about: an exception, a line of its console, a
// violation of its policy.
func complaint(m devToolsMessage) string {
	switch m.Method {
	case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Audits.issueAdded":
		return m.Method + ": " + string(m.Params)
	}
	return ""
}

// complaints are those of all pages up to now.
func (b *browser) complaints() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.bad, "\n")
}

// call calls a method, and decodes its result to result unless that is nil.
func (b *browser) call(session, method string, params, result any) {
	b.t.Helper()
	text, err := json.Marshal(params)
	require.NoError(b.t, err)
	answer := make(chan json.RawMessage, 1)
	b.mu.Lock()
	b.last++
	b.wait[b.last] = answer
	text, err = json.Marshal(devToolsMessage{ID: b.last, Session: session, Method: method, Params: text})
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	require.NoError(b.t, err)
	select {
	case got := <-answer:
		if result != nil {
			require.NoError(b.t, json.Unmarshal(got, result), "%s: %s", method, b.complaints())
		}
	case <-b.gone:
		b.t.Fatal("the browser has ended")
	case <-time.After(clustertest.Patience):
		b.t.Fatalf("the browser does not answer %s", method)
	}
}

// params are those of a call.
type params map[string]any

// page is one tab.
type page struct {
	*browser
	session string
}

// look is how a page is shown.
type look struct {
	width, height int
	scheme        string // light or dark
	noScripts     bool
}

// open opens the address in a tab.
func (b *browser) open(address string, l look) *page {
	b.t.Helper()
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", params{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("", "Target.attachToTarget", params{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &page{b, attached.SessionID}
	for _, domain := range []string{"Page", "Runtime", "Log", "Audits"} {
		p.do(domain+".enable", params{})
	}
	p.show(l)
	p.do("Emulation.setScriptExecutionDisabled", params{"value": l.noScripts})
	p.do("Page.navigate", params{"url": address})
	p.until(`document.readyState === "complete" && location.protocol === "http:"`)
	return p
}

func (p *page) do(method string, with params) { p.t.Helper(); p.call(p.session, method, with, nil) }

// show changes how the page is shown.
func (p *page) show(l look) {
	p.t.Helper()
	p.do("Emulation.setDeviceMetricsOverride", params{"width": l.width, "height": l.height, "deviceScaleFactor": 1, "mobile": l.width < 600})
	p.do("Emulation.setEmulatedMedia", params{"features": []params{{"name": "prefers-color-scheme", "value": l.scheme}}})
}

// eval is the value of an expression in the page, as JSON.
func (p *page) eval(expression string) string {
	p.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	p.call(p.session, "Runtime.evaluate", params{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.ExceptionDetails != nil {
		return fmt.Sprintf("exception: %s", answer.ExceptionDetails)
	}
	return string(answer.Result.Value)
}

// text is an expression's value, a string.
func (p *page) text(expression string) (s string) {
	p.t.Helper()
	value := p.eval(expression)
	require.NoError(p.t, json.Unmarshal([]byte(value), &s), value)
	return s
}

// until waits until an expression is true.
func (p *page) until(expression string) {
	p.t.Helper()
	clustertest.Eventually(p.t, func() bool { return p.eval(expression) == "true" }, expression)
}

// picture makes a picture of the page for docs, if SCREENSHOTS names a directory.
func (p *page) picture(name string, height int) {
	p.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	var size struct{ W, H int }
	require.NoError(p.t, json.Unmarshal([]byte(p.eval(`({W: innerWidth, H: document.documentElement.scrollHeight})`)), &size))
	var picture struct{ Data string }
	p.call(p.session, "Page.captureScreenshot", params{
		"format": "png", "captureBeyondViewport": true,
		"clip": params{"x": 0, "y": 0, "width": size.W, "height": min(size.H, height), "scale": 1},
	}, &picture)
	b, err := base64.StdEncoding.DecodeString(picture.Data)
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644))
}
