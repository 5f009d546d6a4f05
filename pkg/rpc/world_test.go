package rpc_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
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

// mixedReq has a field of every kind that operations use.
type mixedReq struct {
	ID    string    `path:"id" minLength:"1" maxLength:"200"`
	Text  string    `query:"text"`
	Since time.Time `query:"since"`
	Many  []string  `query:"many"`
	Nums  []int     `query:"nums"`
	On    bool      `query:"on"`
	Count int64     `query:"count" default:"100"`
	Size  uint32    `query:"size"`
	Share float64   `query:"share"`
	Token string    `header:"X-Token"`
	When  time.Time `header:"X-When"`
	Body  mixedBody
}

type mixedBody struct {
	Name  string            `json:"name,omitempty"`
	Age   int32             `json:"age,omitempty"`
	Big   uint64            `json:"big,omitempty"`
	Blob  []byte            `json:"blob,omitempty"`
	At    time.Time         `json:"at,omitzero"`
	Tags  map[string]string `json:"tags,omitempty"`
	Inner *mixedInner       `json:"inner,omitempty"`
	List  []mixedInner      `json:"list,omitempty"`
}

type mixedInner struct {
	Note string `json:"note,omitempty" maxLength:"10"`
	N    int8   `json:"n,omitempty"`
}

var (
	greet = rpc.Op[greetReq, greetResp]{Info: rpc.Info{ID: "greet", Method: "POST", Path: "/v1/greet/{name}", Access: rpc.View}}
	mixed = rpc.Op[mixedReq, mixedReq]{Info: rpc.Info{ID: "mixed", Method: "PUT", Path: "/v1/mixed/{id}", Access: rpc.View}}
	drop  = rpc.Op[struct{}, rpc.None]{Info: rpc.Info{ID: "drop", Method: "DELETE", Path: "/v1/things", Access: rpc.Admin}}
	list  = rpc.Op[struct{}, rpc.List[int]]{Info: rpc.Info{ID: "list", Method: "GET", Path: "/v1/things", Access: rpc.View}}
	odd   = rpc.Op[struct{}, oddResp]{Info: rpc.Info{ID: "odd", Method: "GET", Path: "/v1/odd", Access: rpc.View}}
	hold  = rpc.Op[holdReq, rpc.None]{Info: rpc.Info{ID: "hold", Method: "POST", Path: "/v1/hold", Access: rpc.View}}
	count = rpc.Stream[countReq, countEvent]{Info: rpc.Info{ID: "count", Method: "GET", Path: "/v1/count", Access: rpc.View}}
)

type oddResp struct {
	F func() `json:"f"`
}

type holdReq struct {
	Body struct {
		For string `json:"for"`
	}
}

type countReq struct {
	To   int    `query:"to"`
	Fail bool   `query:"fail"`
	Pad  int    `query:"pad"`
	Name string `query:"name"`
}

type countEvent struct {
	N   int    `json:"n"`
	Pad string `json:"pad,omitempty"`
}

// world is a server on a Unix socket, the way a service has one.
type world struct {
	path   string
	log    *lockedBuffer
	holds  chan struct{} // an entry for every call of hold that has begun
	let    chan struct{} // lets one go
	stop   func() error  // ends the server and gives what Serve returned
	stream chan error    // how each stream's handler ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func viewer(rpc.PeerCred) (rpc.Caller, error) { return rpc.Caller{Name: "root", Access: rpc.View}, nil }

func greetBack(ctx context.Context, r *greetReq) (*greetResp, error) {
	switch r.Body.Word {
	case "boom":
		return nil, errors.New("the database said something private")
	case "full":
		return nil, fault.New(fault.Exhausted, "no room").WithHint("make room").WithReason("greetings")
	case "panic":
		panic("ouch")
	case "abort":
		panic(http.ErrAbortHandler)
	}
	return &greetResp{Text: strings.Repeat(r.Body.Word+" "+r.Name, r.Times), Caller: rpc.CallerFrom(ctx).Name + " " + rpc.RequestID(ctx)}, nil
}

func echo(_ context.Context, r *mixedReq) (*mixedReq, error) { return r, nil }

func newWorld(t testing.TB, cfg rpc.ServerConfig) *world {
	t.Helper()
	w := &world{
		path: filepath.Join(t.TempDir(), "s.sock"), log: &lockedBuffer{},
		holds: make(chan struct{}, 100), let: make(chan struct{}), stream: make(chan error, 100),
	}
	if cfg.Identify == nil {
		cfg.Identify = viewer
	}
	cfg.Name, cfg.Log = "svc", slog.New(slog.NewJSONHandler(w.log, nil))
	s := rpc.NewServer(cfg)
	rpc.Handle(s, greet, greetBack)
	rpc.Handle(s, mixed, echo)
	rpc.Handle(s, drop, func(context.Context, *struct{}) (*rpc.None, error) { return nil, nil })
	rpc.Handle(s, list, func(context.Context, *struct{}) (*rpc.List[int], error) { return &rpc.List[int]{}, nil })
	rpc.Handle(s, odd, func(context.Context, *struct{}) (*oddResp, error) { return &oddResp{F: func() {}}, nil })
	rpc.Handle(s, hold, func(ctx context.Context, r *holdReq) (*rpc.None, error) {
		w.holds <- struct{}{}
		if r.Body.For == "caller" {
			<-ctx.Done()
			w.stream <- ctx.Err()
			return nil, ctx.Err()
		}
		select {
		case <-w.let:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	rpc.HandleStream(s, count, func(ctx context.Context, r *countReq, send func(countEvent) error) (err error) {
		defer func() { w.stream <- err }()
		for i := range r.To {
			if err := send(countEvent{N: i, Pad: strings.Repeat("x", r.Pad)}); err != nil {
				return err
			}
		}
		if r.Fail {
			return fault.New(fault.Exhausted, "no more numbers").WithReason("numbers")
		}
		<-ctx.Done()
		return nil
	})
	l, err := net.Listen("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return w
}

func (w *world) conn(t testing.TB) *rpc.Conn {
	c := rpc.DialUnix("svc", w.path, rpc.Options{})
	t.Cleanup(c.CloseIdle)
	return c
}

func (w *world) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// answer is what came back for a request written by hand.
type answer struct {
	status  int
	header  http.Header
	body    string
	problem fault.Problem
	closed  bool // the connection ended with it
}

// say writes raw bytes to a connection of its own and reads one answer.
func (w *world) say(t testing.TB, raw string) answer {
	t.Helper()
	c := w.dial(t)
	go func() { _, _ = io.WriteString(c, raw) }() // the server may not read it all
	method, _, _ := strings.Cut(raw, " ")
	return hear(t, c, method)
}

func hear(t testing.TB, c net.Conn, method string) answer {
	t.Helper()
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("half an answer: %v", err)
	}
	a := answer{status: res.StatusCode, header: res.Header, body: string(body), closed: res.Close}
	_ = json.Unmarshal(body, &a.problem) // whoever wants one looks
	return a
}

// call is say for a request that is well formed.
func (w *world) call(t testing.TB, method, target, body string) answer {
	t.Helper()
	raw := method + " " + target + " HTTP/1.1\r\nHost: x\r\n"
	if body != "" {
		raw += "Content-Type: application/json\r\nContent-Length: " + itoa(len(body)) + "\r\n"
	}
	return w.say(t, raw+"\r\n"+body)
}
