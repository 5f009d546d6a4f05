package rpc_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// problems checks what holds for every refusal.
func (a answer) problems(t *testing.T, status int, field string) {
	t.Helper()
	if a.status != status && a.status/100 != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	if ct := a.header.Get("Content-Type"); ct != fault.ContentType {
		t.Errorf("content type %q: %s", ct, a.body)
	}
	p := a.problem
	if p.Code == "" || p.Status != a.status || p.Title == "" || p.RequestID == "" || p.Detail == "" {
		t.Errorf("not a whole problem: %s", a.body)
	}
	if field == "" {
		return
	}
	for _, f := range p.Errors {
		if f.Path == field {
			return
		}
	}
	t.Errorf("%s does not name %s", a.body, field)
}

func TestBadInputNamesTheField(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	const g, m = "/v1/greet/a", "/v1/mixed/a"
	for _, tc := range []struct {
		name, method, target, body string
		status                     int
		field                      string
	}{
		{"missing", "POST", g, `{}`, 422, "body.word"},
		{"wrong type", "POST", g, `{"word":5}`, 422, "body.word"},
		{"too long", "POST", g, `{"word":"` + strings.Repeat("x", 17) + `"}`, 422, "body.word"},
		{"unknown", "POST", g, `{"word":"x","wrod":1}`, 422, "body.wrod"},
		{"another case", "POST", g, `{"word":"x","WORD":"` + strings.Repeat("x", 17) + `"}`, 422, "body.WORD"},
		{"key twice", "POST", g, `{"word":"` + strings.Repeat("x", 17) + `","word":"x"}`, 4, "body.word"},
		{"key twice, then null", "PUT", m, `{"list":[{},{"note":"much too long a note","note":null}]}`, 4, "body.list[1].note"},
		{"key twice, escaped", "POST", g, `{"word":"x","w\u006frd":"y"}`, 4, "body.word"},
		{"object twice", "PUT", m, `{"inner":{"note":"much too long a note"},"inner":{"n":1}}`, 4, "body.inner"},
		{"bad utf-8", "POST", g, "{\"word\":\"a\xffb\"}", 4, "body.word"},
		{"bad utf-8 in a key", "PUT", m, "{\"inner\":{\"\xff\":1}}", 4, "body.inner"},
		{"half a surrogate pair", "POST", g, `{"word":"a\ud800b"}`, 4, "body.word"},
		{"the other half", "PUT", m, `{"list":[{"note":"\udc00"}]}`, 4, "body.list[0].note"},
		{"two first halves", "POST", g, `{"word":"\ud800\ud800"}`, 4, "body.word"},
		{"NUL", "POST", g, `{"word":"a\u0000"}`, 4, "body.word"},
		{"NUL in a key", "PUT", m, `{"tags":{"\u0000":"x"}}`, 4, "body.tags"},
		{"huge number", "PUT", m, `{"age":1e999}`, 4, "body.age"},
		{"number too large for its type", "PUT", m, `{"big":18446744073709551616}`, 4, "body.big"},
		{"number too large, deep", "PUT", m, `{"list":[{"n":1},{"n":128}]}`, 4, "body.list[1].n"},
		{"no whole number", "PUT", m, `{"age":1.5}`, 4, "body.age"},
		{"exponent", "PUT", m, `{"age":1e3}`, 4, "body.age"},
		{"no base64", "PUT", m, `{"blob":"abc"}`, 4, "body.blob"},
		{"no time", "PUT", m, `{"at":"yesterday"}`, 4, "body.at"},
		{"not json", "POST", g, `{"word"`, 4, "body"},
		{"two documents", "POST", g, `{"word":"x"}{"word":"x"}`, 4, "body"},
		{"null", "POST", g, `null`, 422, "body"},
		{"a list", "POST", g, `["word"]`, 422, "body"},
		{"a text", "POST", g, `"word"`, 422, "body"},
		{"deep", "POST", g, strings.Repeat("[", 20000), 4, "body"},
		{"deep in a field", "POST", g, `{"word":` + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000) + `}`, 422, "body.word"},
		{"no body", "POST", g, ``, 4, "body"},
		{"blank body", "POST", g, ` `, 4, "body"},
		{"body where none is taken", "GET", "/v1/count", `{"x":1}`, 4, "body"},
		{"too large", "POST", g, `{"word":"` + strings.Repeat("x", 70000) + `"}`, 413, "body"},
		{"path too long", "POST", "/v1/greet/abcdefghi", `{"word":"x"}`, 422, "path.name"},
		{"path not utf-8", "POST", "/v1/greet/a%ff", `{"word":"x"}`, 422, "path.name"},
		{"path with NUL", "POST", "/v1/greet/a%00", `{"word":"x"}`, 422, "path.name"},
		{"query range", "POST", g + "?times=10", `{"word":"x"}`, 422, "query.times"},
		{"query type", "POST", g + "?times=x", `{"word":"x"}`, 422, "query.times"},
		{"query overflow", "POST", g + "?times=99999999999999999999", `{"word":"x"}`, 422, "query.times"},
		{"unknown query", "POST", g + "?tiems=1", `{"word":"x"}`, 422, "query.tiems"},
		{"query twice", "POST", g + "?times=1&times=2", `{"word":"x"}`, 422, "query.times"},
		{"query not encoded", "POST", g + "?times=%zz", `{"word":"x"}`, 422, "query.times"},
		{"query name not encoded", "POST", g + "?%zz=1", `{"word":"x"}`, 422, "query"},
		{"query with semicolon", "POST", g + "?times=1;x=2", `{"word":"x"}`, 422, "query.times"},
		{"query not utf-8", "PUT", m + "?text=%ff", `{}`, 422, "query.text"},
		{"query with NUL", "PUT", m + "?text=%00", `{}`, 422, "query.text"},
		{"query time", "PUT", m + "?since=now", `{}`, 422, "query.since"},
		{"query list", "PUT", m + "?nums=1,x", `{}`, 422, "query.nums"},
		{"method", "GET", g, ``, 405, ""},
		{"method in lower case", "post", g, `{"word":"x"}`, 405, ""},
		{"HEAD of a stream", "HEAD", "/v1/count", ``, 405, ""},
		{"OPTIONS", "OPTIONS", g, ``, 405, ""},
		{"path", "GET", "/v1/nothing", ``, 404, ""},
		{"root", "GET", "/", ``, 404, ""},
		{"slash at the end", "GET", "/v1/things/", ``, 404, ""},
		{"path that is not clean", "GET", "/v1//things", ``, 404, ""},
		{"path with dots", "GET", "/v1/x/../things", ``, 404, ""},
		{"empty path parameter", "POST", "/v1/greet/", `{"word":"x"}`, 404, ""},
		{"OPTIONS *", "OPTIONS", "*", ``, 404, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := w.call(t, tc.method, tc.target, tc.body)
			if tc.method == "HEAD" {
				if a.status != tc.status {
					t.Errorf("status %d", a.status)
				}
				return
			}
			a.problems(t, tc.status, tc.field)
			if tc.status == 405 && a.header.Get("Allow") == "" {
				t.Error("nothing is said of what is allowed")
			}
		})
	}
	if log := w.log.String(); log != "" {
		t.Errorf("the server complained: %s", log)
	}
}

func TestOddButValidInputIsTaken(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	for _, raw := range []string{
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                                                       // no Content-Type
		"POST /v1/greet/ann HTTP/1.0\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                                                                  // HTTP/1.0
		"POST /v1/greet/ann?times=&& HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                                              // empty parameters
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nAccept: text/html;,;q\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                              // nonsense in Accept
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nAccept: json\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                                       // not a type
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",      // with a parameter
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"wor\r\n7\r\nd\":\"x\"}\r\n0\r\n\r\n",                    // chunked
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Length: 27\r\n\r\n{\"word\":\"\\ud83d\\ude00\\\"\\\\\"}",                                  // escapes
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                               // does not wait
		"DELETE /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",                                                                        // 404, and goes on
		"GET /v1/things HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",                                                                          // a habit
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.x+json\r\nContent-Length: 14\r\n\r\n{\"word\":\"x\"}\r\n",           // another name for JSON
		"POST /v1/greet/%61nn HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n\r\n{\"loud\":null,\"word\":\"x\"}",                                       // null for what is optional
		"POST http://elsewhere/v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"word\":\"x\"}",                                       // absolute form
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n{\"word\":\"x\",\"loud\":true}      ", // the rest is another request
	} {
		a := w.say(t, raw)
		if a.status >= 500 || a.status >= 300 && !strings.Contains(raw, "nothing") {
			t.Errorf("%q: %d %s", raw, a.status, a.body)
		}
		if a.closed && !strings.Contains(raw, "HTTP/1.0") {
			t.Errorf("%q: the connection was ended", raw)
		}
	}
	if a := w.call(t, "PUT", "/v1/mixed/a?on&text=b", "{}"); !strings.Contains(a.body, `"On":true`) {
		t.Errorf("a name alone: %s", a.body)
	}
}

func TestWhatNetHTTPAnswersIsAProblemToo(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	for name, raw := range map[string]struct {
		text   string
		status int
	}{
		"no HTTP":              {"hello\r\n\r\n", 400},
		"no host":              {"GET /v1/things HTTP/1.1\r\n\r\n", 400},
		"bad header":           {"GET /v1/things HTTP/1.1\r\nHost: x\r\nbad header: x\r\n\r\n", 400},
		"header too long":      {"GET /v1/things HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 40000) + "\r\n\r\n", 431},
		"unknown encoding":     {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
		"unknown version":      {"GET /v1/things HTTP/3.0\r\nHost: x\r\n\r\n", 400},
		"HTTP/2 by heart":      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4},
		"unknown expectation":  {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 2\r\n\r\n{}", 417},
		"two lengths":          {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"length and chunked":   {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 422},
		"broken chunk":         {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 422},
		"NUL in the path":      {"GET /v1/th\x00ings HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"another content type": {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\nword=x", 415},
		"content type in knots": {"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nContent-Type: a;+b\r\nContent-Length: 6\r\n\r\nword=x",
			415},
	} {
		t.Run(name, func(t *testing.T) { w.say(t, raw.text).problems(t, raw.status, "") })
	}
}

func TestATooLargeBodyIsRefusedAndTheConnectionEnds(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	head := "POST /v1/greet/a HTTP/1.1\r\nHost: x\r\n"
	chunk := "10000\r\n" + strings.Repeat(" ", 0x10000) + "\r\n"
	for name, raw := range map[string]string{
		"announced":             head + "Content-Length: 10000000\r\n\r\n" + strings.Repeat(" ", 300_000),
		"chunked":               head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 8),
		"announced and awaited": head + "Expect: 100-continue\r\nContent-Length: 10000000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			a := w.say(t, raw)
			a.problems(t, 413, "body")
			if !a.closed {
				t.Error("the connection goes on")
			}
		})
	}
	exact := `{"word":"x"` + strings.Repeat(" ", rpc.MaxBody-len(`{"word":"x"}`)) + "}"
	if a := w.call(t, "POST", "/v1/greet/a", exact); a.status != 200 {
		t.Errorf("a body of just the limit: %d %s", a.status, a.body)
	}
	if a := w.call(t, "POST", "/v1/greet/a", exact+" "); a.status != 413 {
		t.Errorf("one byte more: %d %s", a.status, a.body)
	}
}

func TestContinueIsSaidToThoseWhoWait(t *testing.T) {
	w := newWorld(t, rpc.ServerConfig{})
	c := w.dial(t)
	if _, err := io.WriteString(c, "POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	want := "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := io.WriteString(c, `{"word":"x"}`); err != nil {
		t.Fatal(err)
	}
	if a := hear(t, c, "POST"); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}

func TestASlowBodyIsNotWaitedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	w := newWorld(t, rpc.ServerConfig{})
	a := w.say(t, "POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n{\"word\"")
	a.problems(t, 408, "")
	if !a.closed {
		t.Error("the connection goes on")
	}
}

func TestHTTPWhereHTTPSIsSpokenIsTold(t *testing.T) {
	s := rpc.NewServer(rpc.ServerConfig{Name: "svc", TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, io.EOF
	}}})
	addr := serveTCP(t, s)
	a := sayTo(t, addr, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	a.problems(t, 400, "")
	if !strings.Contains(a.problem.Detail, "HTTPS") {
		t.Errorf("got %s", a.body)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("\x00\x01\x02\x03\x04\x05\x06\x07")); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(c); strings.Contains(string(got), "HTTP") {
		t.Errorf("noise was answered in HTTP: %q", got)
	}
}
