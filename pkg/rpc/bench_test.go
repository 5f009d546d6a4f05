package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/rpc"
)

// BenchmarkCall is one call over a Unix socket, and BenchmarkBareHTTP the
// floor below it: the same bytes through net/http with nothing around them.
func BenchmarkCall(b *testing.B) {
	conn := rpc.DialUnix("svc", newWorld(b, rpc.ServerConfig{}).path, rpc.Options{})
	b.Cleanup(conn.CloseIdle)
	req := &greetReq{Name: "ann", Times: 1}
	req.Body.Word = "hello"
	call := func() {
		if _, err := greet.Call(context.Background(), conn, req); err != nil {
			b.Fatal(err)
		}
	}
	call()
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				call()
			}
		})
	})
}

func BenchmarkBareHTTP(b *testing.B) {
	path := filepath.Join(b.TempDir(), "bare.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	type body struct {
		Word string `json:"word"`
		Loud bool   `json:"loud,omitempty"`
	}
	s := &http.Server{ReadTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		var in body
		_ = json.Unmarshal(data, &in)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(greetResp{Text: in.Word + " ann", Caller: "root"})
	})}
	go func() { _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close() })
	c := &http.Client{Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
		MaxIdleConnsPerHost: 64, DisableCompression: true,
	}}
	b.Cleanup(c.CloseIdleConnections)
	call := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		data, _ := json.Marshal(body{Word: "hello"})
		r, _ := http.NewRequestWithContext(ctx, "POST", "http://x/v1/greet/ann?times=1", bytes.NewReader(data))
		r.Header.Set("Content-Type", "application/json")
		res, err := c.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		data, _ = io.ReadAll(res.Body)
		_ = res.Body.Close()
		var out greetResp
		if err := json.Unmarshal(data, &out); err != nil {
			b.Fatal(err)
		}
	}
	call()
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				call()
			}
		})
	})
}

// BenchmarkHeartbeatPath is what a client's heartbeat goes through: TLS, an
// operation that calls another over a Unix socket. Its floor is the same two
// hops through net/http.
func BenchmarkHeartbeatPath(b *testing.B) {
	cert, pool := selfSigned(b)
	w := newWorld(b, rpc.ServerConfig{})
	inner := w.conn(b)
	outer := rpc.NewServer(rpc.ServerConfig{Name: "gateway", TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	rpc.Handle(outer, postOpen, func(ctx context.Context, _ *struct{}) (*greetResp, error) {
		req := &greetReq{Name: "ann"}
		req.Body.Word = "hello"
		return greet.Call(ctx, inner, req)
	})
	addr := serveTCP(b, outer)
	conn := rpc.DialTLS("localhost:1", &tls.Config{RootCAs: pool}, rpc.Options{Dial: func(context.Context) (net.Conn, error) {
		return net.Dial("tcp", addr)
	}})
	b.Cleanup(conn.CloseIdle)
	b.Run("rpc", func(b *testing.B) {
		for b.Loop() {
			if _, err := postOpen.Call(context.Background(), conn, nil); err != nil {
				b.Fatal(err)
			}
		}
	})

	bare := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", w.path) }}}
	b.Cleanup(bare.CloseIdleConnections)
	hs := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		res, err := bare.Post("http://x/v1/greet/ann", "application/json", strings.NewReader(`{"word":"hello"}`))
		if err != nil {
			b.Error(err)
			return
		}
		defer res.Body.Close()
		_, _ = io.Copy(rw, res.Body)
	}))
	b.Cleanup(hs.Close)
	b.Run("half bare", func(b *testing.B) { // its inner hop still ends in rpc
		c := hs.Client()
		for b.Loop() {
			res, err := c.Post(hs.URL, "application/json", nil)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	})
}
