//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// Seen is what the target's front page answers.
type Seen struct {
	Client netip.Addr `json:"client"` // where the request came from
	Port   uint16     `json:"port"`
	Target netip.Addr `json:"target"` // the address that was asked
	Host   string     `json:"host"`
}

// maxBytes bounds /bytes, to an hour at a gigabit.
const maxBytes = 1 << 39

// page is the targets' web site.
//
//	GET  /           who is seen, as JSON (Seen)
//	GET  /ip         the same as a line of text
//	GET  /bytes?n=N  a body of N bytes
//	POST /upload     reads the body, answers its length
//	GET  /contacts   the record, as JSON; ?service=dns or mail for a part of it
func (t *targets) page() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", t.whoami)
	mux.HandleFunc("GET /ip", t.ip)
	mux.HandleFunc("GET /bytes", t.bytes)
	mux.HandleFunc("POST /upload", t.upload)
	mux.HandleFunc("GET /contacts", t.listContacts)
	return mux
}

func (t *targets) serveHTTP(a netip.Addr) error {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 80)))
	if err != nil {
		return err
	}
	page := t.page()
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if t.begin() {
				defer t.wg.Done()
				page.ServeHTTP(w, r)
			}
		}),
	}
	t.closers = append(t.closers, srv)
	t.wg.Go(func() { _ = srv.Serve(ln) })
	return nil
}

// begin counts a request that close has to wait for; it is false when close no
// longer would.
func (t *targets) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ending {
		t.wg.Add(1)
	}
	return !t.ending
}

func (t *targets) whoami(w http.ResponseWriter, r *http.Request) {
	client := clientOf(r)
	seen := Seen{Client: client.Addr(), Port: client.Port(), Host: r.Host}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		seen.Target = addrOf(local)
	}
	writeJSON(w, seen)
}

func (t *targets) ip(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, clientOf(r).Addr())
}

func clientOf(r *http.Request) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func (t *targets) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, "n must be a number of bytes", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	buf := make([]byte, 256<<10)
	for n > 0 {
		part := min(n, int64(len(buf)))
		if _, err := w.Write(buf[:part]); err != nil {
			return
		}
		n -= part
	}
}

func (t *targets) upload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, map[string]int64{"bytes": n})
}

func (t *targets) listContacts(w http.ResponseWriter, r *http.Request) {
	service := r.URL.Query().Get("service")
	out := []Contact{} // an empty list, not null
	t.mu.Lock()
	for _, c := range t.contacts {
		if service == "" || c.Service == service {
			out = append(out, c)
		}
	}
	t.mu.Unlock()
	writeJSON(w, out)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
