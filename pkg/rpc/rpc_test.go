package rpc_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func itoa(n int) string { return strconv.Itoa(n) }

func greeting(word string) *greetReq {
	r := &greetReq{Name: "ann"}
	r.Body.Word = word
	return r
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestErrorsKeepTheirMeaningAcrossTheSocket(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	conn := w.conn(t)
	_, err := greet.Call(t.Context(), conn, greeting("full"))
	if !errors.Is(err, fault.Exhausted) || fault.ReasonOf(err) != "greetings" || fault.From(err).Hint != "make room" {
		t.Errorf("got %#v", err)
	}
	for _, word := range []string{"boom", "panic"} {
		_, err = greet.Call(t.Context(), conn, greeting(word))
		if !errors.Is(err, fault.Internal) || strings.Contains(err.Error(), "private") {
			t.Errorf("%s: got %v, want internal without the text", word, err)
		}
	}
	if !strings.Contains(w.log.String(), "something private") || !strings.Contains(w.log.String(), "ouch") {
		t.Errorf("the log tells nothing: %s", w.log)
	}
	if _, err := drop.Call(t.Context(), conn, nil); !errors.Is(err, fault.Denied) {
		t.Errorf("admin operation with view access: got %v, want denied", err)
	}
	if _, err := odd.Call(t.Context(), conn, nil); !errors.Is(err, fault.Internal) {
		t.Errorf("an answer that cannot be encoded: got %v, want internal", err)
	}
	if _, err := greet.Call(t.Context(), conn, greeting("abort")); !errors.Is(err, fault.Unavailable) {
		t.Errorf("an answer that was broken off: got %v, want unavailable", err)
	}
}

func TestAnEmptyListIsAList(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	if got := w.call(t, "GET", "/v1/things", ""); got.body != `{"items":[],"total":0}`+"\n" {
		t.Errorf("got %s", got.body)
	}
}

func TestRequestIDsComeFromLocalCallersOnly(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	conn := w.conn(t)
	got, err := greet.Call(rpc.WithRequestID(t.Context(), "req-1"), conn, greeting("hi"))
	if err != nil || got.Caller != "root req-1" {
		t.Errorf("got %+v, %v, want root req-1", got, err)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 65), "x\u00e9", "a\"b"} {
		a := w.say(t, "GET /v1/things HTTP/1.1\r\nHost: x\r\nX-Request-Id: "+bad+"\r\n\r\n")
		if id := a.header.Get("X-Request-Id"); id == bad || len(id) != 12 {
			t.Errorf("%q became %q", bad, id)
		}
	}
	s := rpc.NewServer(rpc.ServerConfig{Name: "svc"})
	rpc.Handle(s, open, func(ctx context.Context, _ *struct{}) (*greetResp, error) {
		return &greetResp{Text: rpc.RequestID(ctx), Caller: rpc.CallerFrom(ctx).Remote}, nil
	})
	addr := serveTCP(t, s)
	a := sayTo(t, addr, "GET /v1/open HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n")
	if id := a.header.Get("X-Request-Id"); a.status != 200 || id == "mine" || !strings.Contains(a.body, id) {
		t.Errorf("a stranger's id was taken over: %+v", a)
	}
}

var open = rpc.Op[struct{}, greetResp]{Info: rpc.Info{ID: "open", Method: "GET", Path: "/v1/open", Access: rpc.Public}}

func serveTCP(t testing.TB, s *rpc.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func sayTo(t *testing.T, addr, raw string) answer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte(raw)); err != nil {
		t.Fatal(err)
	}
	return hear(t, c, "GET")
}

func TestWhoIsNotAdmittedIsToldSo(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{Identify: func(p rpc.PeerCred) (rpc.Caller, error) {
		return rpc.Caller{}, fault.New(fault.Denied, "uid %d may not call", p.UID).WithHint("use another socket")
	}})
	for _, target := range []string{"/v1/things", "/v1/nothing", "/"} {
		a := w.call(t, "GET", target, "")
		if a.status != 403 || a.problem.Code != fault.Denied || a.problem.Hint == "" || a.header.Get("Content-Type") != fault.ContentType {
			t.Errorf("%s: %+v", target, a)
		}
	}
}

func TestARefusalComesBeforeTheInputIsRead(t *testing.T) {
	guarded := 0
	w := newWorld(t, rpc.ServerConfig{Guard: func(ctx context.Context, op rpc.Info, r rpc.Request) (context.Context, error) {
		guarded++
		if r.Header("Authorization") != "Bearer good" {
			return ctx, fault.New(fault.Unauthenticated, "%s needs a token", op.ID)
		}
		return ctx, nil
	}})
	// The body that is announced never comes.
	a := w.say(t, "POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	if a.status != 401 || a.header.Get("WWW-Authenticate") != "Bearer" || a.problem.Code != fault.Unauthenticated {
		t.Errorf("got %+v", a)
	}
	if a := w.call(t, "POST", "/v1/greet/much-too-long?nothing=1", "rubbish"); a.status != 401 {
		t.Errorf("input was judged first: %+v", a)
	}
	if a := w.call(t, "DELETE", "/v1/things", ""); a.status != 403 || guarded != 2 {
		t.Errorf("the guard was asked %d times about what the level refuses: %+v", guarded, a)
	}
}

func TestSiblingsAreAdmittedByName(t *testing.T) {
	inner := rpc.Info{ID: "inner", Method: "GET", Path: "/v1/inner", Access: rpc.Internal, From: []string{"auth"}}
	for _, tc := range []struct {
		caller rpc.Caller
		op     rpc.Info
		ok     bool
	}{
		{rpc.Caller{Name: "auth", Access: rpc.Internal}, inner, true},
		{rpc.Caller{Name: "gateway", Access: rpc.Internal}, inner, false},
		{rpc.Caller{Name: "root", Access: rpc.Admin}, inner, false},
		{rpc.Caller{Name: "auth", Access: rpc.Internal}, rpc.Info{ID: "x", Method: "GET", Path: "/v1/x", Access: rpc.Admin}, true},
		{rpc.Caller{Name: "bob", Access: rpc.View}, rpc.Info{ID: "x", Method: "GET", Path: "/v1/x", Access: rpc.Admin}, false},
		{rpc.Caller{Name: "bob", Access: rpc.Admin}, rpc.Info{ID: "x", Method: "GET", Path: "/v1/x", Access: rpc.View}, true},
	} {
		s := rpc.NewServer(rpc.ServerConfig{Name: "svc", Identify: func(rpc.PeerCred) (rpc.Caller, error) { return tc.caller, nil }})
		op := rpc.Op[struct{}, rpc.None]{Info: tc.op}
		rpc.Handle(s, op, func(context.Context, *struct{}) (*rpc.None, error) { return nil, nil })
		path := t.TempDir() + "/s"
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		conn := rpc.DialUnix("svc", path, rpc.Options{})
		if _, err := op.Call(t.Context(), conn, nil); (err == nil) != tc.ok || err != nil && !errors.Is(err, fault.Denied) {
			t.Errorf("%s (%s) calling %s (%s, from %v): %v, want allowed %v", tc.caller.Name, tc.caller.Access, op.ID, op.Access, op.From, err, tc.ok)
		}
		conn.CloseIdle()
		cancel()
		<-done
	}
}

func TestALongAnswerOutlivesTheTimeForTheRequest(t *testing.T) {
	if testing.Short() {
		t.Skip("takes eleven seconds")
	}
	t.Parallel()
	w := newWorld(t, rpc.ServerConfig{})
	result := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := hold.Call(ctx, w.conn(t), &holdReq{})
		result <- err
	}()
	<-w.holds
	select {
	case err := <-result:
		t.Fatalf("ended early: %v", err)
	case <-time.After(11 * time.Second): // longer than a request may take to arrive
	}
	w.let <- struct{}{}
	if err := <-result; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestACallerWhoGoesAwayEndsTheCall(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	req := &holdReq{}
	req.Body.For = "caller"
	go func() {
		_, err := hold.Call(ctx, w.conn(t), req)
		result <- err
	}()
	<-w.holds
	cancel()
	if err := <-result; !errors.Is(err, fault.Canceled) {
		t.Errorf("caller: got %v, want canceled", err)
	}
	if err := <-w.stream; !errors.Is(err, context.Canceled) {
		t.Errorf("handler: got %v, want canceled", err)
	}
}
