package rpc_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"vpnd/pkg/rpc"
)

// ping writes parts and gives all that comes back before the end.
func (w *world) ping(t testing.TB, parts ...string) string {
	t.Helper()
	c := w.dial(t)
	defer c.Close()
	for _, p := range parts {
		if _, err := io.WriteString(c, p); err != nil {
			break // the other side has had enough
		}
	}
	if u, ok := c.(interface{ CloseWrite() error }); ok && len(parts) > 0 && strings.HasSuffix(parts[len(parts)-1], "…") {
		_ = u.CloseWrite()
	}
	got, _ := io.ReadAll(c) // a reset is an end too
	return string(got)
}

func TestHeartbeatSharesTheSocket(t *testing.T) {
	var sick atomic.Bool
	w := newWorld(t, rpc.ServerConfig{Ready: func() error {
		if sick.Load() {
			return errors.New("keys are missing")
		}
		return nil
	}})
	const pong = `{"status":"pong","ready":true}` + "\n"
	for name, parts := range map[string][]string{
		"one line":        {`{"action":"ping"}` + "\n"},
		"without end":     {`{"action":"ping"}`},
		"in pieces":       {`{"act`, `ion"`, `:"ping"`, "}", "\n"},
		"byte by byte":    strings.Split(`{"action":"ping"}`+"\n", ""),
		"with more":       {`{"id":1,"action":"ping"}` + "\nGET / HTTP/1.1\r\n"},
		"carriage":        {`{"action":"ping"}` + "\r\n"},
		"first byte only": {"{", `"action":"ping"}` + "\n"},
	} {
		if got := w.ping(t, parts...); got != pong {
			t.Errorf("%s: got %q", name, got)
		}
	}
	for name, parts := range map[string][]string{
		"another action":       {`{"action":"stop"}` + "\n"},
		"no action":            {"{}\n"},
		"no JSON":              {"{ping}\n"},
		"wrong type":           {`{"action":1}` + "\n"},
		"oversized":            {"{" + strings.Repeat(" ", 5000)},
		"oversized, in pieces": {"{", strings.Repeat(" ", 600), strings.Repeat(" ", 600)},
		"broken off":           {`{"action":"pi…`},
	} {
		if got := w.ping(t, parts...); got != "" {
			t.Errorf("%s: got %q, want nothing", name, got)
		}
	}
	sick.Store(true)
	want := `{"status":"pong","ready":false,"reason":"keys are missing"}` + "\n"
	if got := w.ping(t, `{"action":"ping"}`+"\n"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if a := w.call(t, "GET", "/v1/things", ""); a.status != 200 {
		t.Errorf("calls stop with readiness: %+v", a)
	}
}

func TestAHeartbeatIsTheFirstThingSaidOrNone(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	c := w.dial(t)
	if _, err := io.WriteString(c, "GET /v1/things HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if a := hear(t, c, "GET"); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	if _, err := io.WriteString(c, `{"action":"ping"}`+"\n\r\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, c, "GET").problems(t, 400, "")
}

func FuzzPing(f *testing.F) {
	for _, s := range []string{`{"action":"ping"}` + "\n", `{"action":"ping"`, "{", "{\n", `{"action":null}` + "\n", "{\x00\xff}\n", `{"action":"ping","action":"x"}` + "\n"} {
		f.Add(s, 1)
		f.Add(s, 3)
	}
	w := newWorld(f, rpc.ServerConfig{})
	f.Fuzz(func(t *testing.T, rest string, cut int) {
		if len(rest) > 8000 {
			return
		}
		text := "{" + rest
		cut = max(0, min(cut, len(text)))
		got := w.ping(t, text[:cut], text[cut:], strings.Repeat(" ", 2000)+"\n")
		var line struct {
			Action string `json:"action"`
		}
		first, _, _ := strings.Cut(text, "\n")
		asked := json.Unmarshal([]byte(first), &line) == nil && line.Action == "ping" && len(first) < 900
		if asked && got == "" || got != "" && got != `{"status":"pong","ready":true}`+"\n" {
			t.Errorf("%q: got %q", text, got)
		}
	})
}
