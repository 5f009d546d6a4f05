package rpc_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// FuzzRequest sends anything at all. Whatever it is, the answer is no failure
// of the server, and a refusal is a problem.
func FuzzRequest(f *testing.F) {
	body := `{"word":"x"}`
	for _, s := range []string{
		"POST /v1/greet/ann HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n" + body,
		"POST /v1/greet/ann?times=2 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n" + body + "\r\n0\r\n\r\n",
		"PUT /v1/mixed/a%2Fb?many=a,b&nums=1,2&on=1&count=5&size=4&share=1e3&since=2026-01-02T03:04:05Z HTTP/1.1\r\nHost: x\r\nX-When: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 40\r\n\r\n" + `{"name":"a","list":[{"n":1}],"blob":"YQ"}`,
		"GET /v1/things HTTP/1.1\r\nHost: x\r\nAccept: a;q\r\n\r\n",
		"GET /v1/things HTTP/1.1\r\nHost: x\r\nAccept: application/json;,;q=\r\n\r\n",
		"HEAD /v1/things HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET //v1/./things/ HTTP/1.0\r\n\r\n", "GET /v1/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET ?x HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE /v1/things?;&=&% HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "{\"action\":\"ping\"}\n", "\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "0 * HTTP/1.0\n0000:\nEXpeCt:0\n\n",
		"POST /v1/greet/a HTTP/1.1\r\nHost: x\r\nContent-Type: ;+\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
	} {
		f.Add([]byte(s))
	}
	w := newWorld(f, rpc.ServerConfig{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte("count")) || bytes.Contains(raw, []byte("hold")) || bytes.Contains(raw, []byte("odd")) {
			return // they wait, or fail on purpose
		}
		c := w.dial(t)
		defer c.Close()
		if _, err := c.Write(raw); err != nil {
			t.Fatal(err)
		}
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
		got, _ := io.ReadAll(c) // a reset is an end too
		method, _, _ := strings.Cut(string(raw), " ")
		for br := bufio.NewReader(bytes.NewReader(got)); ; method = "" {
			if _, err := br.Peek(1); err != nil || got[0] == '{' {
				return
			}
			res, err := http.ReadResponse(br, &http.Request{Method: method})
			if err != nil {
				return // the answer to a HEAD that came second looks broken from here
			}
			body, err := io.ReadAll(res.Body)
			if res.StatusCode >= 500 {
				t.Fatalf("%q: %d %s", raw, res.StatusCode, body)
			}
			if err == nil && res.StatusCode >= 300 && res.Header.Get("Content-Type") != fault.ContentType {
				t.Fatalf("%q: not a problem: %d %q", raw, res.StatusCode, body)
			}
		}
	})
}

// FuzzHandler is FuzzRequest without the rules of HTTP in the way: values that
// net/http would have refused reach the handler too.
func FuzzHandler(f *testing.F) {
	f.Add("POST", "/v1/greet/ann", "times=2", "application/json", "", []byte(`{"word":"x"}`))
	f.Add("PUT", "/v1/mixed/x", "many=a,b&nums=1&on&count=-1&size=-1&share=NaN", "json", "a;q", []byte(`{"tags":{"":""},"inner":null,"list":[{}]}`))
	f.Add("PUT", "/v1/mixed/%", "nums=,", ";", ",;", []byte(`{"age":1e400,"at":"2026-01-02T03:04:05Z","blob":"=="}`))
	f.Add("GET", "/v1/things", "%", "+", "*/*;q=0", []byte(`null`))
	f.Add("", "x", "", "a+;", ";", []byte{0})
	s := rpc.NewServer(rpc.ServerConfig{Name: "svc", Identify: viewer})
	public := greet
	public.Access = rpc.Public
	rpc.Handle(s, public, greetBack)
	many := mixed
	many.Access = rpc.Public
	rpc.Handle(s, many, echo)
	f.Fuzz(func(t *testing.T, method, path, query, contentType, accept string, body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RequestURI = method, path, "", query, path
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code >= 500 || w.Code >= 300 && w.Header().Get("Content-Type") != fault.ContentType {
			t.Errorf("%q %q %q %q %q %q: %d %s", method, path, query, contentType, accept, body, w.Code, w.Body)
		}
	})
}
