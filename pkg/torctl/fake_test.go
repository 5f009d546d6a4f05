package torctl_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/torctl"
)

// fake is a scripted control port. Its answer function gets every command
// after AUTHENTICATE; an answer is written as it is, "" writes nothing, and
// "hangup" at its end closes the connection.
type fake struct {
	path, cookie string // cookie: file, or empty for METHODS=NULL
	hello        string // replaces the answer to PROTOCOLINFO
	answer       func(line string) string

	mu    sync.Mutex
	lines []string
	conns []net.Conn
}

func newFake(t testing.TB, cookie bool, answer func(string) string) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "tc")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{path: filepath.Join(dir, "s"), answer: answer}
	if cookie {
		f.cookie = filepath.Join(dir, "a \\cookie")
		secret := make([]byte, 32)
		rand.Read(secret)
		if err := os.WriteFile(f.cookie, secret, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", f.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, nc)
			f.mu.Unlock()
			wg.Go(func() { defer nc.Close(); f.serve(nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, nc := range f.conns {
			nc.Close()
		}
		f.mu.Unlock()
		wg.Wait()
		os.RemoveAll(dir)
	})
	return f
}

func (f *fake) serve(nc net.Conn) {
	in := bufio.NewScanner(nc)
	var want string
	for in.Scan() {
		line := in.Text()
		verb, rest, _ := strings.Cut(line, " ")
		out := ""
		switch verb {
		case "PROTOCOLINFO":
			auth := "METHODS=NULL"
			if f.cookie != "" {
				auth = `METHODS=COOKIE,SAFECOOKIE COOKIEFILE="` + strings.ReplaceAll(f.cookie, `\`, `\\`) + `"`
			}
			out = "250-PROTOCOLINFO 1\r\n250-AUTH " + auth + "\r\n250-VERSION Tor=\"0.4.9.11\"\r\n250 OK\r\n"
			if f.hello != "" {
				out = f.hello
			}
		case "AUTHCHALLENGE":
			secret, _ := os.ReadFile(f.cookie)
			nonce, _ := hex.DecodeString(strings.TrimPrefix(rest, "SAFECOOKIE "))
			mine := make([]byte, 32)
			sign := func(who string) string {
				m := hmac.New(sha256.New, []byte("Tor safe cookie authentication "+who))
				m.Write(secret)
				m.Write(nonce)
				m.Write(mine)
				return hex.EncodeToString(m.Sum(nil))
			}
			want = sign("controller-to-server hash")
			out = fmt.Sprintf("250 AUTHCHALLENGE SERVERHASH=%s SERVERNONCE=%x\r\n", sign("server-to-controller hash"), mine)
		case "AUTHENTICATE":
			if out = "250 OK\r\n"; rest != want {
				out = "515 Bad authentication\r\n"
			}
		default:
			f.mu.Lock()
			f.lines = append(f.lines, line)
			f.mu.Unlock()
			out = f.answer(line)
		}
		out, end := strings.CutSuffix(out, "hangup")
		if _, err := nc.Write([]byte(out)); err != nil || end {
			return
		}
	}
}

// say writes to the event connection, which is dialed second.
func (f *fake) say(s string) {
	f.mu.Lock()
	nc := f.conns[1]
	f.mu.Unlock()
	nc.Write([]byte(s))
}

func (f *fake) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) == 0 {
		return ""
	}
	return f.lines[len(f.lines)-1]
}

func dial(t testing.TB, f *fake) *torctl.Client {
	t.Helper()
	c, err := torctl.Dial(t.Context(), f.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
func ok(string) string { return "250 OK\r\n" }
