package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

type greetReq struct {
	Name  string `path:"name" maxLength:"8"`
	Times int    `query:"times" minimum:"1" maximum:"9" default:"1"`
	Body  struct {
		Word string `json:"word" minLength:"1" maxLength:"16"`
		Loud bool   `json:"loud,omitempty"`
	}
}

type greetResp struct {
	Text   string `json:"text"`
	Caller string `json:"caller"`
}

var greet = rpc.Op[greetReq, greetResp]{Info: rpc.Info{ID: "greet", Method: "POST", Path: "/v1/greet/{name}", Access: rpc.View}}
var drop = rpc.Op[struct{}, rpc.None]{Info: rpc.Info{ID: "drop", Method: "DELETE", Path: "/v1/things", Access: rpc.Admin}}
var count = rpc.Stream[struct{}, int]{Info: rpc.Info{ID: "count", Method: "GET", Path: "/v1/count", Access: rpc.View}}

// serve runs a server on a Unix socket, the way a service does.
func serve(t *testing.T, cfg rpc.ServerConfig) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	if cfg.Identify == nil {
		cfg.Identify = func(p rpc.PeerCred) (rpc.Caller, error) { return rpc.Caller{Name: "root", Access: rpc.View}, nil }
	}
	s := rpc.NewServer(cfg)
	rpc.Handle(s, greet, func(ctx context.Context, r *greetReq) (*greetResp, error) {
		switch r.Body.Word {
		case "boom":
			return nil, errors.New("the database said something private")
		case "full":
			return nil, fault.New(fault.Exhausted, "no room").WithHint("make room").WithReason("greetings")
		case "panic":
			panic("ouch")
		}
		return &greetResp{Text: strings.Repeat(r.Body.Word+" "+r.Name, r.Times), Caller: rpc.CallerFrom(ctx).Name}, nil
	})
	rpc.Handle(s, drop, func(context.Context, *struct{}) (*rpc.None, error) { return nil, nil })
	rpc.HandleStream(s, count, func(ctx context.Context, _ *struct{}, send func(int) error) error {
		for i := range 3 {
			if err := send(i); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	})
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return path
}

func call(t *testing.T, path, method, target, body string) (int, string, http.Header) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://x"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(data), res.Header
}

func TestCallGoesThereAndBack(t *testing.T) {
	conn := rpc.DialUnix("svc", serve(t, rpc.ServerConfig{Name: "svc"}), rpc.Options{})
	req := &greetReq{Name: "a/b c", Times: 2}
	req.Body.Word = "hi"
	got, err := greet.Call(t.Context(), conn, req)
	if err != nil {
		t.Fatal(err)
	}
	if want := "hi a/b chi a/b c"; got.Text != want || got.Caller != "root" {
		t.Errorf("got %+v, want text %q from root", got, want)
	}
}

func TestErrorsKeepTheirMeaningAcrossTheSocket(t *testing.T) {
	conn := rpc.DialUnix("svc", serve(t, rpc.ServerConfig{Name: "svc"}), rpc.Options{})
	req := &greetReq{Name: "a", Times: 1}
	req.Body.Word = "full"
	_, err := greet.Call(t.Context(), conn, req)
	if !errors.Is(err, fault.Exhausted) || fault.ReasonOf(err) != "greetings" || fault.From(err).Hint != "make room" {
		t.Errorf("got %#v", err)
	}
	for _, word := range []string{"boom", "panic"} {
		req.Body.Word = word
		_, err = greet.Call(t.Context(), conn, req)
		if !errors.Is(err, fault.Internal) || strings.Contains(err.Error(), "private") {
			t.Errorf("%s: got %v, want internal without the text", word, err)
		}
	}
	if _, err := drop.Call(t.Context(), conn, nil); !errors.Is(err, fault.Denied) {
		t.Errorf("admin operation with view access: got %v, want denied", err)
	}
}

func TestBadInputNamesTheField(t *testing.T) {
	path := serve(t, rpc.ServerConfig{Name: "svc"})
	for _, tc := range []struct {
		name, method, target, body string
		status                     int
		field                      string
	}{
		{"missing", "POST", "/v1/greet/a", `{}`, 422, `"body.word"`},
		{"wrong type", "POST", "/v1/greet/a", `{"word":5}`, 422, `"body.word"`},
		{"too long", "POST", "/v1/greet/a", `{"word":"` + strings.Repeat("x", 17) + `"}`, 422, `"body.word"`},
		{"unknown", "POST", "/v1/greet/a", `{"word":"x","wrod":1}`, 422, `"body.wrod"`},
		{"bad utf-8", "POST", "/v1/greet/a", "{\"word\":\"a\xffb\"}", 4, `"body.word"`},
		{"not json", "POST", "/v1/greet/a", `{"word"`, 4, `"body"`},
		{"no body", "POST", "/v1/greet/a", ``, 4, `body`},
		{"path too long", "POST", "/v1/greet/abcdefghi", `{"word":"x"}`, 422, `"path.name"`},
		{"query range", "POST", "/v1/greet/a?times=10", `{"word":"x"}`, 422, `"query.times"`},
		{"query type", "POST", "/v1/greet/a?times=x", `{"word":"x"}`, 422, `"query.times"`},
		{"unknown query", "POST", "/v1/greet/a?tiems=1", `{"word":"x"}`, 422, `"query.tiems"`},
		{"too large", "POST", "/v1/greet/a", `{"word":"` + strings.Repeat("x", 70000) + `"}`, 413, ``},
		{"method", "GET", "/v1/greet/a", ``, 405, ``},
		{"path", "GET", "/v1/nothing", ``, 404, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body, h := call(t, path, tc.method, tc.target, tc.body)
			if status != tc.status && status/100 != tc.status {
				t.Errorf("status %d, want %d: %s", status, tc.status, body)
			}
			if ct := h.Get("Content-Type"); ct != fault.ContentType {
				t.Errorf("content type %q", ct)
			}
			if !strings.Contains(body, tc.field) || !strings.Contains(body, `"code":"`) {
				t.Errorf("body %s does not name %s", body, tc.field)
			}
		})
	}
}

func TestStreamEndsWithTheServer(t *testing.T) {
	conn := rpc.DialUnix("svc", serve(t, rpc.ServerConfig{Name: "svc"}), rpc.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []int
	err := count.Follow(ctx, conn, nil, func(i int) error {
		if got = append(got, i); len(got) == 3 {
			cancel()
		}
		return nil
	})
	if err != nil || len(got) != 3 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestHeartbeatSharesTheSocket(t *testing.T) {
	path := serve(t, rpc.ServerConfig{Name: "svc", Ready: func() error { return errors.New("keys are missing") }})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, `{"action":"ping"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(c)
	if want := `{"status":"pong","ready":false,"reason":"keys are missing"}` + "\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

