package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
)

// guard says who may do what: see Start.
type guard struct {
	token string
	hosts []string // in lower case, beside those that hostAllowed knows
}

func newGuard(o Options) guard {
	g := guard{token: o.Token}
	for _, h := range o.Hosts {
		g.hosts = append(g.hosts, strings.ToLower(h))
	}
	if name, err := os.Hostname(); err == nil {
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	return g
}

// peerKey is what the context of a connection of the socket has its *peer under.
type peerKey struct{}

// withPeer notes who is at the other end of a unix socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if u, ok := c.(*net.UnixConn); ok {
		return context.WithValue(ctx, peerKey{}, peerOf(u))
	}
	return ctx
}

// peerIn is who asks over the socket, or nil if it is asked another way.
func peerIn(r *http.Request) *peer {
	p, _ := r.Context().Value(peerKey{}).(*peer)
	return p
}

// all is what holds for every request: its Host and its Origin. A page of another
// origin can have a browser ask here, by a name that leads here, but not by one of
// those that are allowed. That holds for the socket too, to which a port of the
// operator's machine may lead (ssh -L); no browser leaves out the name.
func (g guard) all(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (peerIn(r) == nil || r.Host != "") && !g.hostAllowed(r.Host) {
			http.Error(w, "this host name is not one of Options.Hosts", http.StatusMisdirectedRequest)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !sameOrigin(origin, r.Host) {
			http.Error(w, "a request of another origin", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// hostAllowed reports whether the address may be asked by that name: one that no
// stranger can make lead here.
func (g guard) hostAllowed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && !strings.Contains(host, ".") || slices.Contains(g.hosts, host)
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}

// trusted reports whether whoever asks may have all: it is the same user or root at
// the socket, or it has the token.
func (g guard) trusted(r *http.Request) bool {
	if p := peerIn(r); p != nil && p.err == nil && (p.uid == os.Geteuid() || p.uid == 0) {
		return true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		_, given, _ = r.BasicAuth()
	}
	// Of the same length, so that the time tells nothing.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(g.token))
	return g.token != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// private lets only the trusted in.
func (g guard) private(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !g.trusted(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="cluster"`)
			http.Error(w, "this needs the token, or the socket", http.StatusUnauthorized)
			return
		}
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" { // with a password that the browser knows
			http.Error(w, "a request of another site", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

// ordering lets orders in: of the trusted, with the header, and of no worker.
func (g guard) ordering(all *workers, next http.HandlerFunc) http.HandlerFunc {
	return g.private(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Cluster") != "1" {
			http.Error(w, "an order needs the header X-Cluster: 1", http.StatusForbidden)
			return
		}
		if p := peerIn(r); p != nil && p.descends(all.pids()) {
			http.Error(w, "a worker, and what it has started, may order nothing", http.StatusForbidden)
			return
		}
		next(w, r)
	})
}
