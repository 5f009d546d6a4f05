package logline_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/logline"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

type fields = []logline.Field

func TestParse(t *testing.T) {
	unset := now.Truncate(time.Microsecond)
	for name, c := range map[string]struct {
		line string
		want logline.Record
	}{
		"our own services": {
			`{"ts":"2026-03-01T11:59:58.1234567Z","level":"WARN","event":"sign-in refused","service":"auth","user":"alice","device":"phone","session":"s1","request_id":"r1","dur_ms":12.50,"ok":false,"peer":{"ip":"10.0.0.1","port":51820}}` + "\n",
			logline.Record{Time: at("2026-03-01T11:59:58.123456Z"), Level: logline.Warn, Service: "auth", Event: "sign-in refused", User: "alice", Device: "phone", Session: "s1", RequestID: "r1",
				Fields: fields{{"dur_ms", "12.50", logline.Number}, {"ok", "false", logline.Bool}, {"peer.ip", "10.0.0.1", logline.String}, {"peer.port", "51820", logline.Number}}},
		},
		"other spellings": {
			`{"@timestamp":1772366398123,"Severity":"Warning","MSG":"hi","logger":"nginx","userName":"bob","trace_id":7,"session_id":"x","user_id":3}`,
			logline.Record{Time: at("2026-03-01T11:59:58.123Z"), Level: logline.Warn, Service: "nginx", Message: "hi", User: "bob", RequestID: "7", Session: "x", Fields: fields{{"user_id", "3", logline.Number}}},
		},
		"the first of two wins, the second stays": {
			`{"user":"alice","username":"mallory","a":1,"a":2}`,
			logline.Record{Time: unset, Service: "file", User: "alice", Fields: fields{{"user", "mallory", logline.String}, {"a", "1", logline.Number}, {"a", "2", logline.Number}}},
		},
		"what is no time or level stays as a field": {
			`{"time":"soon","level":"weird","ts":"1999-12-31T23:59:59Z","timestamp":"2026-03-02T12:00:01Z","event":{"a":[1, "x"]}}`,
			logline.Record{Time: unset, Service: "file", Fields: fields{{"ts", "soon", logline.String}, {"level", "weird", logline.String}, {"ts", "1999-12-31T23:59:59Z", logline.String}, {"ts", "2026-03-02T12:00:01Z", logline.String}, {"event.a", `[1, "x"]`, logline.JSON}}},
		},
		"a good time after a bad one": {
			`{"time":0,"ts":1772366398}`,
			logline.Record{Time: at("2026-03-01T11:59:58Z"), Service: "file", Fields: fields{{"ts", "0", logline.Number}}},
		},
		"nothing said": {
			`{"time":null,"level":"","user":null,"service":"","x":null,"y":"","z":{}}`,
			logline.Record{Time: unset, Service: "file", Fields: fields{{"x", "null", logline.Null}, {"y", "", logline.String}, {"z", "{}", logline.JSON}}},
		},
		"escapes": {
			`{"msg":"a\u0000\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud800x","\u006bey":"\u001b[31m"}`,
			logline.Record{Time: unset, Service: "file", Message: "a\ufffd\"\\/\b\f\n\r\té😀\ufffdx", Fields: fields{{"key", "\x1b[31m", logline.String}}},
		},
		"bytes that are no text":   {"{\"msg\":\"a\x00b\xff\"}", logline.Record{Time: unset, Service: "file", Message: "a\ufffdb\ufffd"}},
		"an array":                 {`["a"]`, logline.Record{Time: unset, Service: "file", Message: `["a"]`}},
		"half an object":           {`{"user":"alice","x":`, logline.Record{Time: unset, Service: "file", Message: `{"user":"alice","x":`}},
		"more after the object":    {`{"user":"alice"} x`, logline.Record{Time: unset, Service: "file", Message: `{"user":"alice"} x`}},
		"nothing":                  {"\r\n", logline.Record{Time: unset, Service: "file"}},
		"a mark before, space":     {"\ufeff  {\"user\" : \"a\" } \r\n", logline.Record{Time: unset, Service: "file", User: "a"}},
		"plain, time and level":    {"2026-03-01 11:59:58,5 [warning] disk: 90%", logline.Record{Time: at("2026-03-01T11:59:58.5Z"), Level: logline.Warn, Service: "file", Message: "2026-03-01 11:59:58,5 [warning] disk: 90%"}},
		"plain, in brackets":       {"[2026-03-01T12:59:58+01:00] ERROR x", logline.Record{Time: at("2026-03-01T11:59:58Z"), Level: logline.Error, Service: "file", Message: "[2026-03-01T12:59:58+01:00] ERROR x"}},
		"plain, Go's log":          {"2026/03/01 11:59:58 hello", logline.Record{Time: at("2026-03-01T11:59:58Z"), Service: "file", Message: "2026/03/01 11:59:58 hello"}},
		"plain, a panic":           {"panic: nil map", logline.Record{Time: unset, Level: logline.Fatal, Service: "file", Message: "panic: nil map"}},
		"plain, a word like level": {"Error in line 3, info follows", logline.Record{Time: unset, Service: "file", Message: "Error in line 3, info follows"}},
		"plain, tor":               {"Feb 28 16:24:30.120 [notice] Bootstrapped 100%", logline.Record{Time: at("2026-02-28T16:24:30.12Z"), Level: logline.Info, Service: "file", Message: "Feb 28 16:24:30.120 [notice] Bootstrapped 100%"}},
		"plain, tor, [err]":        {"Mar 01 11:59:58.000 [err] x", logline.Record{Time: at("2026-03-01T11:59:58Z"), Level: logline.Error, Service: "file", Message: "Mar 01 11:59:58.000 [err] x"}},
		"plain, syslog":            {"Mar  1 11:59:58 host sshd[7]: x", logline.Record{Time: at("2026-03-01T11:59:58Z"), Service: "file", Message: "Mar  1 11:59:58 host sshd[7]: x"}},
		"plain, last year":         {"Mar  3 11:59:58 x", logline.Record{Time: at("2025-03-03T11:59:58Z"), Service: "file", Message: "Mar  3 11:59:58 x"}},
		"plain, a leap day":        {"Feb 29 11:59:58 x", logline.Record{Time: at("2024-02-29T11:59:58Z"), Service: "file", Message: "Feb 29 11:59:58 x"}},
		"plain, no such day":       {"Feb 30 11:59:58 ERROR x", logline.Record{Time: unset, Service: "file", Message: "Feb 30 11:59:58 ERROR x"}},
		"plain, nginx error":       {"2026/03/01 11:59:58 [crit] 7#7: *1 x", logline.Record{Time: at("2026-03-01T11:59:58Z"), Level: logline.Fatal, Service: "file", Message: "2026/03/01 11:59:58 [crit] 7#7: *1 x"}},
		"plain, nginx access":      {`10.0.0.1 - bob [01/Mar/2026:12:59:58 +0100] "GET /"`, logline.Record{Time: at("2026-03-01T11:59:58Z"), Service: "file", Message: `10.0.0.1 - bob [01/Mar/2026:12:59:58 +0100] "GET /"`}},
		"plain, slog's text":       {`time=2026-03-01T11:59:58.000Z level=INFO+4 msg="a b" level=ERROR`, logline.Record{Time: at("2026-03-01T11:59:58Z"), Level: logline.Warn, Service: "file", Message: `time=2026-03-01T11:59:58.000Z level=INFO+4 msg="a b" level=ERROR`}},
		"plain, logrus":            {`time="2026-03-01 11:59:58" level=error msg=x`, logline.Record{Time: at("2026-03-01T11:59:58Z"), Level: logline.Error, Service: "file", Message: `time="2026-03-01 11:59:58" level=error msg=x`}},
		"plain, a level of water":  {`level=5 of 7`, logline.Record{Time: unset, Service: "file", Message: `level=5 of 7`}},
		"plain, Python":            {"ERROR:root:x", logline.Record{Time: unset, Level: logline.Error, Service: "file", Message: "ERROR:root:x"}},
		"plain, years off":         {"2031-03-01 11:59:58 INFO x", logline.Record{Time: unset, Level: logline.Info, Service: "file", Message: "2031-03-01 11:59:58 INFO x"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.File = "/l/a.log"
			got := logline.Parse([]byte(c.line), logline.Defaults{Service: "file", File: "/l/a.log", Now: now})
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestParseBounds(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"a0":0`)
	for range logline.MaxFields + 1 {
		b.WriteString(`,"k\u0022":"v\u0085","o":{"x":1}`)
	}
	b.WriteString(`,"user":"alice"}`)
	r := logline.Parse([]byte(b.String()), logline.Defaults{Now: now})
	last := r.Fields[len(r.Fields)-1]
	if len(r.Fields) != logline.MaxFields+1 || last.Key != "more" || last.Kind != logline.JSON || !json.Valid([]byte(last.Value)) || r.User != "alice" {
		t.Errorf("%d fields, the last %.80v, user %q", len(r.Fields), last, r.User)
	}
	if n := strings.Count(last.Value, `"o.x":1`) + strings.Count(last.Value, `"k\"":`); n != 2*(logline.MaxFields+1)+1-logline.MaxFields {
		t.Errorf("%d fields in more", n)
	}

	deep := strings.Repeat(`{"a":`, logline.MaxDepth+2) + "1" + strings.Repeat("}", logline.MaxDepth+2)
	r = logline.Parse([]byte(deep), logline.Defaults{Now: now})
	if want := (fields{{"a" + strings.Repeat(".a", logline.MaxDepth), `{"a":1}`, logline.JSON}}); !cmp.Equal(want, r.Fields) {
		t.Errorf("got %v", r.Fields)
	}
	// encoding/json stops at the same depth, the object's own one included.
	for n, want := range map[int]int{9_999: 1, 10_000: 0} {
		nested := `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
		if r = logline.Parse([]byte(nested), logline.Defaults{Now: now}); len(r.Fields) != want || json.Valid([]byte(nested)) != (want == 1) {
			t.Errorf("%d arrays: %d fields", n, len(r.Fields))
		}
	}
	bomb := strings.Repeat(`{"a":[`, 200_000)
	if r = logline.Parse([]byte(bomb), logline.Defaults{Now: now}); r.Message != bomb[:logline.MaxLine] || !r.Cut {
		t.Error("a bomb must be a cut message")
	}
}

func TestParseCutLineKeepsItsBeginning(t *testing.T) {
	line := `{"ts":"2026-03-01T11:59:58Z","level":"error","user":"alice","n":1,"big":"` + strings.Repeat("é", logline.MaxLine)
	for _, d := range []logline.Defaults{{Now: now}, {Now: now, Cut: true}} {
		l := line
		if d.Cut {
			l = line[:1000]
		}
		r := logline.Parse([]byte(l), d)
		if !r.Cut || r.User != "alice" || r.Level != logline.Error || !r.Time.Equal(at("2026-03-01T11:59:58Z")) || r.Fields != nil || r.Message[:75] != l[:75] {
			t.Errorf("got %.200v", r)
		}
	}
	if r := logline.Parse([]byte(line[:1000]), logline.Defaults{Now: now}); r.User != "" || r.Cut {
		t.Error("a broken line that was not cut is plain text")
	}
}

// Paths are any bytes, and a record is text.
func TestPlacesAreMadeText(t *testing.T) {
	r := logline.Parse([]byte("x"), logline.Defaults{Service: "\xff\x00", File: "/l/\xff.log", Now: now})
	if r.Service != "\ufffd\ufffd" || r.File != "/l/\ufffd.log" {
		t.Errorf("got %q, %q", r.Service, r.File)
	}
}

func TestGet(t *testing.T) {
	r := logline.Parse([]byte(`{"ts":"2026-03-01T12:59:58+01:00","lvl":"E","level":"err","msg":"m","username":"alice","Odd Key":"x","file":"main.go","p":{"q":1}}`), logline.Defaults{Service: "s", File: "f", Now: now})
	for k, want := range map[string]string{"time": "2026-03-01T11:59:58.000000Z", "severity": "error", "service": "s", "message": "m", "user": "alice", "USERNAME": "alice", "Odd Key": "x", "file": "f", "p.q": "1"} {
		if got, ok := r.Get(k); got != want || !ok {
			t.Errorf("Get(%q) = %q, %v; want %q", k, got, ok, want)
		}
	}
	for _, k := range []string{"device", "odd key", "p", "", "ts"} {
		if got, ok := r.Get(k); ok {
			t.Errorf("Get(%q) = %q", k, got)
		}
	}
	if r.Text() != "m" {
		t.Error(r.Text())
	}
}

func TestJSON(t *testing.T) {
	r := logline.Record{Time: now, Level: logline.Fatal, Service: "s", Event: "e", Message: "\x1b]0;x\a \u009b \u202e\u2028 \"\\ <b>", User: "alice", Device: "d", Session: "S", RequestID: "r", File: "f", Cut: true,
		Fields: fields{{"user", "mallory", logline.String}, {"n", "1e3", logline.Number}, {"n", "null", logline.Null}, {"n~2", "true", logline.Bool}, {"a", "[\n1,\"\u0080\"]", logline.JSON}, {"cut", "1", logline.Number}}}
	want := `{"time":"2026-03-01T12:00:00.123456Z","level":"fatal","service":"s","event":"e","message":"\u001b]0;x\u0007 \u009b \u202e\u2028 \"\\ <b>","user":"alice","device":"d","session":"S","request_id":"r",` +
		`"user~2":"mallory","n":1e3,"n~3":null,"n~2":true,"a":[ 1,"\u0080"],"cut~2":1,"file":"f","cut":true}`
	if got := string(r.JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// oracle is Parse for a line that encoding/json calls an object, by its means.
func oracle(line string) logline.Record {
	r := logline.Record{}
	timed := false
	var walk func(prefix, obj string, depth int)
	walk = func(prefix, obj string, depth int) {
		dec := json.NewDecoder(strings.NewReader(obj))
		if _, err := dec.Token(); err != nil {
			panic(err)
		}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				panic(err)
			}
			key := strings.ReplaceAll(k.(string), "\x00", "\ufffd")
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil {
				panic(err)
			}
			f := logline.Field{Key: prefix + key, Value: string(raw)}
			switch raw[0] {
			case '"':
				if err := json.Unmarshal(raw, &f.Value); err != nil {
					panic(err)
				}
				f.Value = strings.ReplaceAll(f.Value, "\x00", "\ufffd")
			case '{':
				if depth < logline.MaxDepth && strings.TrimLeft(f.Value[1:], " \t\r\n") != "}" {
					walk(f.Key+".", f.Value, depth+1)
					continue
				}
				f.Kind = logline.JSON
			case '[':
				f.Kind = logline.JSON
			case 't', 'f':
				f.Kind = logline.Bool
			case 'n':
				f.Kind = logline.Null
			default:
				f.Kind = logline.Number
			}
			name := logline.Canonical(key)
			if key == "file" || depth > 0 || strings.EqualFold(key, "file") {
				name = key
			} else if strings.EqualFold(key, "ts") {
				name = "time"
			}
			slots := map[string]*string{"service": &r.Service, "event": &r.Event, "message": &r.Message, "user": &r.User, "device": &r.Device, "session": &r.Session, "request_id": &r.RequestID}
			slot := slots[name]
			if depth > 0 {
				slot, name = nil, ""
			}
			if silent := f.Kind == logline.Null || f.Value == ""; silent && (slot != nil || name == "time" || name == "level") {
				continue
			}
			scalar := f.Kind == logline.String || f.Kind == logline.Number
			switch {
			case name == "time":
				if at, ok := logline.ParseTime(f.Value); !timed && scalar && ok && logline.Plausible(at, now) {
					r.Time, timed = at, true
					continue
				}
				f.Key = "ts"
			case name == "level":
				if l, ok := logline.ParseLevel(f.Value); r.Level == logline.Unknown && scalar && ok {
					r.Level = l
					continue
				}
				f.Key = name
			case slot != nil:
				if *slot == "" && f.Kind != logline.JSON {
					*slot = f.Value
					continue
				}
				f.Key = name
			}
			r.Fields = append(r.Fields, f)
		}
	}
	walk("", line, 0)
	if !timed {
		r.Time = now.Truncate(time.Microsecond)
	}
	return r
}

var seeds = []string{
	`{"ts":"2026-03-01T11:59:58.1234567Z","level":"WARN","event":"e","service":"auth","peer":{"ip":"10.0.0.1","port":[1,{"a":-0.5e+10}]}}`,
	`{"":{"":""},"a":{},"b":[ ],"c":{ } , "user":true,"user":1,"USER":[]}`,
	`{"\u0000\ud83d\ude00\ud800\u0041":"\ud800\udc00\udc00\/"}`, `{"time":1.5e9,"level":30}`, `{"a":01}`, `{"a":1.}`, `{"a":tru}`, `{"a" 1}`, `{"a":1,}`, `{,}`, "{\"a\":\"\x1f\"}", "{\"a\":\"\\n\x1f\"}", "{\"a\":[\"\x1f\"]}", `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\`,
	"{\"a\":\"\xff\x00\"}", "\ufeff{}", "{}x", "[]", "", "\n", "2026-03-01 11:59:58 INFO x", "ERROR", "[", `{"a":-}`, `{"level":"INFO+2","timestamp":"x","ts":null,"TS":3}`, "Feb 29 11:59:58.1 [warn] x", `time="2026-03-01 11:59:58" level=info a="`, `level= x=`, `- [01/Mar/2026:12:59:58 +0100] x`, `{"file":"x","File":"y","more":1,"cut":2,"time~2":3}`,
	`{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":{"j":1}}}}}}}}}}`,
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got := logline.Parse(line, logline.Defaults{Now: now})
		text := strings.ReplaceAll(strings.ToValidUTF8(strings.TrimRight(strings.TrimPrefix(string(line), "\ufeff"), "\r\n"), "\ufffd"), "\x00", "\ufffd")
		trimmed := strings.TrimLeft(text, " \t\r\n")
		if len(line) <= logline.MaxLine && strings.HasPrefix(trimmed, "{") && json.Valid([]byte(text)) {
			if want := oracle(trimmed); len(want.Fields) <= logline.MaxFields {
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("%q: -encoding/json +Parse\n%s", line, d)
				}
			}
		} else if len(line) <= logline.MaxLine && (got.Message != text || got.Fields != nil || got.User != "" || got.Cut) {
			t.Fatalf("%q is plain text, not %+v", line, got)
		}
		for k, v := range got.Pairs() {
			if !utf8.ValidString(k+v) || strings.IndexByte(k+v, 0) >= 0 {
				t.Fatalf("%q is no text", k+v)
			}
		}
		out := got.JSON()
		if bytes.ContainsFunc(out, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) || !json.Valid(out) {
			t.Fatalf("%q gives %q", line, out)
		}
		keys := map[string]bool{}
		dec := json.NewDecoder(bytes.NewReader(out))
		dec.Token()
		for dec.More() {
			k, _ := dec.Token()
			if keys[k.(string)] {
				t.Fatalf("%q: the key %q comes twice in %s", line, k, out)
			}
			keys[k.(string)] = true
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(string(out), "~") || strings.Contains(string(out), `":[`) || strings.Contains(string(out), `":{`) || len(out) > logline.MaxLine {
			return // numbered keys stay numbered, and JSON text is escaped anew
		}
		back := logline.Parse(out, logline.Defaults{Now: now})
		if d := cmp.Diff(got, back); d != "" {
			t.Fatalf("%q is not the same after JSON and back: %s\n%s", line, out, d)
		}
	})
}
