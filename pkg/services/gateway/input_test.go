package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/client"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// operations are the client API with a good body each, and the greatest length
// of each field.
func operations() []struct {
	method, path string
	bearer       bool
	fields       map[string]int
} {
	return []struct {
		method, path string
		bearer       bool
		fields       map[string]int
	}{
		{"GET", "/health", false, nil},
		{"GET", "/auth/pubkey", false, nil},
		{"POST", "/auth/login", false, map[string]int{"kid": 128, "enc": 4096, "ciphertext": 16384}},
		{"POST", "/auth/reauth", false, map[string]int{"refresh_token": 256}},
		{"POST", "/auth/logout", false, map[string]int{"refresh_token": 256}},
		{"POST", "/vpn/initiate", true, map[string]int{"public_key": 64}},
		{"POST", "/session/heartbeat", true, nil},
		{"POST", "/session/close", true, nil},
		{"POST", "/vpn/verify/id", true, nil},
		{"GET", "/session/lanes", true, nil},
	}
}

func encode(m map[string]any) string {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestBadInputOfEveryOperation(t *testing.T) {
	w := running(t)
	token := w.token()
	for _, op := range operations() {
		tok := ""
		if op.bearer {
			tok = token
		}
		good := map[string]any{}
		for f := range op.fields {
			good[f] = "x"
		}
		body := ""
		if op.fields != nil {
			body = encode(good)
		}
		if a := w.call(op.method, op.path, tok, body); a.status/100 != 2 {
			t.Errorf("%s: good input: %d %s", op.path, a.status, a.body)
		}
		before := w.counted("auth") + w.counted("sessions")
		refused := func(what, path, body, field string) {
			t.Helper()
			a := w.call(op.method, path, tok, body)
			if a.err != nil || a.status/100 != 4 || a.header.Get("Content-Type") != fault.ContentType || a.problem.Code != fault.Invalid {
				t.Errorf("%s %s: %d %s %v", op.path, what, a.status, a.body, a.err)
			}
			if field != "" && !slices.ContainsFunc(a.problem.Errors, func(f fault.Field) bool { return f.Path == field }) {
				t.Errorf("%s %s: %s does not name %s", op.path, what, a.body, field)
			}
		}
		refused("unknown query", op.path+"?a=1", body, "query.a")
		refused("unknown field", op.path, strings.TrimSuffix(strings.TrimSuffix(body, "}"), "{")+wrong(body), "")
		for f, most := range op.fields {
			with := func(v any) string {
				m := maps.Clone(good)
				m[f] = v
				return encode(m)
			}
			missing := maps.Clone(good)
			delete(missing, f)
			refused(f+" missing", op.path, encode(missing), "body."+f)
			refused(f+" null", op.path, with(nil), "body."+f)
			refused(f+" is a number", op.path, with(7), "body."+f)
			refused(f+" is a list", op.path, with([]string{"x"}), "body."+f)
			refused(f+" empty", op.path, with(""), "body."+f)
			refused(f+" too long", op.path, with(strings.Repeat("x", most+1)), "body."+f)
			refused(f+" invalid UTF-8", op.path, strings.Replace(with("MARK"), "MARK", "a\xffb", 1), "body."+f)
			refused(f+" half a surrogate", op.path, strings.Replace(with("MARK"), "MARK", `\ud800`, 1), "body."+f)
			refused("unknown beside "+f, op.path, encode(map[string]any{f: "x", "extra": 1}), "body.extra")
			refused("twice "+f, op.path, fmt.Sprintf(`{%q:"a",%s`, f, encode(good)[1:]), "body."+f)
		}
		if op.fields != nil {
			refused("no body", op.path, "", "body")
			for _, bad := range []string{"{", "[]", "null", `"x"`, "\xff", body + body} {
				refused("body "+bad, op.path, bad, "")
			}
			big := encode(map[string]any{"x": strings.Repeat("x", 70_000)})
			if a := w.call(op.method, op.path, tok, big); a.status != 413 || a.problem.Code != fault.Invalid {
				t.Errorf("%s: too large: %d %s %v", op.path, a.status, a.body, a.err)
			}
		}
		if n := w.counted("auth") + w.counted("sessions") - before; n != 0 {
			t.Errorf("%s: siblings heard of %d bad inputs", op.path, n)
		}
	}
	for _, wrongMethod := range []struct{ method, path string }{{"GET", "/auth/login"}, {"POST", "/health"}, {"DELETE", "/vpn/initiate"}} {
		wantProblem(t, wrongMethod.method+" "+wrongMethod.path, w.call(wrongMethod.method, wrongMethod.path, token, ""), 405, fault.Invalid, "")
	}
	wantProblem(t, "unknown path", w.call("GET", "/v1/users", token, ""), 404, fault.NotFound, "")
}

// wrong makes a body with a field that nobody knows.
func wrong(body string) string {
	if body == "" || body == "{}" {
		return `{"extra":1}`
	}
	return `,"extra":1}`
}

func TestErrorsOfSiblingsReachTheClient(t *testing.T) {
	w := running(t)
	login := `{"kid":"x","enc":"x","ciphertext":"x"}`
	for _, tc := range []struct {
		name   string
		err    error
		status int
		reason string
	}{
		{"wrong password", fault.New(fault.Unauthenticated, "no").WithReason("bad_credentials"), 401, "bad_credentials"},
		{"suspended", fault.New(fault.Denied, "no").WithReason("suspended"), 403, "suspended"},
		{"not found", fault.New(fault.NotFound, "no"), 404, ""},
		{"device limit", fault.New(fault.Conflict, "no").WithReason("device_limit"), 409, "device_limit"},
		{"pool full", fault.New(fault.Exhausted, "no").WithReason("pool_exhausted").WithHint("enlarge it"), 409, "pool_exhausted"},
		{"invalid", fault.InvalidField("body.ciphertext", "does not open").WithReason("not_sealed_for_us"), 422, "not_sealed_for_us"},
		{"throttled", fault.New(fault.Throttled, "slowly").WithReason("guard").WithRetryAfter(7 * time.Second), 429, "guard"},
		{"unavailable", fault.New(fault.Unavailable, "later"), 503, ""},
		{"timeout", fault.New(fault.Timeout, "users did not answer in time"), 503, ""},
	} {
		w.onLogin = func(context.Context, *auth.LoginRequest) (*client.Tokens, error) { return nil, tc.err }
		w.onOpen = func(context.Context, *sessions.InitiateRequest) (*client.Initiated, error) { return nil, tc.err }
		code := fault.CodeOf(tc.err)
		if code == fault.Timeout {
			code = fault.Unavailable
		}
		for path, body := range map[string]string{"/auth/login": login, "/vpn/initiate": `{"public_key":"x"}`} {
			a := w.call("POST", path, w.token(), body)
			wantProblem(t, tc.name, a, tc.status, code, tc.reason)
			if f := fault.From(tc.err); a.problem.Hint != f.Hint || len(a.problem.Errors) != len(f.Fields) {
				t.Errorf("%s: %s", tc.name, a.body)
			}
			if tc.name == "throttled" && a.header.Get("Retry-After") != "7" {
				t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
			}
		}
	}
}

func TestWhatSiblingsAreTold(t *testing.T) {
	w := running(t)
	var got []string
	var mu sync.Mutex
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf(format, args...))
	}
	w.onLogin = func(_ context.Context, r *auth.LoginRequest) (*client.Tokens, error) {
		note("login %s %s %s from %s", r.Body.KID, r.Body.Enc, r.Body.Ciphertext, r.Body.Remote)
		return &client.Tokens{}, nil
	}
	w.onOpen = func(_ context.Context, r *sessions.InitiateRequest) (*client.Initiated, error) {
		note("open %s %s %s from %s", r.Body.User, r.Body.Device, r.Body.PublicKey, r.Body.Remote)
		return &client.Initiated{}, nil
	}
	w.onClose = func(_ context.Context, r *sessions.CloseRequest) (*sessions.ClosedReply, error) {
		note("close %s %s%s %v", r.Body.Device, r.Body.User, r.Body.Reason, r.Body.Forget)
		return &sessions.ClosedReply{}, nil
	}
	w.onLanes = func(_ context.Context, r *sessions.LanesRequest) (*client.LaneStates, error) {
		note("lanes %s %s", r.User, r.Device)
		return &client.LaneStates{Tor: client.LaneState{State: "up", Exits: []string{"de"}, Strict: true, ExitCountry: "de"}}, nil
	}
	w.call("POST", "/auth/login", "", `{"kid":"a","enc":"b","ciphertext":"c"}`)
	w.call("POST", "/vpn/initiate", w.token(), `{"public_key":"k"}`)
	if a := w.call("POST", "/session/close", w.token(), ""); a.status != 204 || a.body != "" {
		t.Errorf("close: %d %q", a.status, a.body)
	}
	if a := w.call("GET", "/session/lanes", w.token(), ""); a.status != 200 || !strings.Contains(a.body, `"exit_country":"de"`) {
		t.Errorf("lanes: %d %q", a.status, a.body)
	}
	w.onLanes = func(context.Context, *sessions.LanesRequest) (*client.LaneStates, error) {
		return nil, fault.New(fault.NotFound, "no session is open").WithReason("no_session")
	}
	wantProblem(t, "no session", w.call("GET", "/session/lanes", w.token(), ""), 404, fault.NotFound, "no_session")
	wantProblem(t, "no token", w.call("GET", "/session/lanes", "", ""), 401, fault.Unauthenticated, "missing_token")
	want := []string{"login a b c from 127.0.0.1", "open usr_1 dev_1 k from 127.0.0.1", "close dev_1 closed_by_user false", "lanes usr_1 dev_1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
