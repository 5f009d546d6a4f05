package logs_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/rpc"
)

// fact is one line of a raw file, as docs/logs.md says it is understood.
type fact struct {
	at     time.Time
	values map[string]string // by the names of queries
	text   []string          // " word word " of each value that a text search looks at
}

var (
	spellings = map[string]string{
		"ts": "time", "timestamp": "time", "@timestamp": "time", "severity": "level", "lvl": "level", "logger": "service",
		"component": "service", "msg": "message", "username": "user", "session_id": "session", "trace_id": "request_id", "req_id": "request_id",
	}
	grave   = []string{"trace", "debug", "info", "warn", "error", "fatal"}
	aliases = map[string]string{"WARNING": "warn", "err": "error", "notice": "info", "crit": "fatal"}
	words   = regexp.MustCompile(`[\p{L}\p{N}_]+`)
)

// facts reads every line of every file below a folder.
func facts(t *testing.T, dir string) (all []fact) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
			f := understand(t, s.Text())
			f.values["file"] = path
			if f.values["service"] == "" {
				f.values["service"] = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
			}
			all = append(all, f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b fact) int { return a.at.Compare(b.at) })
	return all
}

func understand(t *testing.T, line string) fact {
	f := fact{values: map[string]string{}}
	object := map[string]any{}
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if d.Decode(&object) == nil {
		flatten(f.values, "", object)
	} else { // 2026-01-31T21:00:00Z LEVEL words
		p := strings.SplitN(line, " ", 3)
		f.values["time"], f.values["level"], f.values["message"] = p[0], strings.ToLower(p[1]), line
	}
	at, err := time.Parse(time.RFC3339Nano, f.values["time"])
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	f.at = at
	delete(f.values, "time")
	if level, ok := aliases[f.values["level"]]; ok {
		f.values["level"] = level
	}
	for name, v := range f.values {
		if name != "service" && name != "level" {
			f.text = append(f.text, " "+strings.Join(words.FindAllString(strings.ToLower(v), -1), " ")+" ")
		}
	}
	return f
}

func flatten(into map[string]string, prefix string, object map[string]any) {
	for key, v := range object {
		name := prefix + key
		if known, ok := spellings[key]; ok && prefix == "" {
			name = known
		}
		switch v := v.(type) {
		case map[string]any:
			flatten(into, name+".", v)
		case []any:
			text, _ := json.Marshal(v)
			into[name] = string(text)
		default:
			into[name] = fmt.Sprint(v)
		}
	}
}

// rawLine makes a line of one of the kinds that programs write. Its number n is
// in it, and no two have the same time.
func rawLine(r *rand.Rand, at time.Time, n int) string {
	ts := at.Format("2006-01-02T15:04:05.000000Z07:00")
	if r.IntN(6) == 0 {
		return fmt.Sprintf("%s %s peer 10.8.0.%d said n%d and %s", ts, pick(r, "INFO", "WARN", "ERROR"), r.IntN(20), n, pick(r, "left", "came back", "Sign-In refused"))
	}
	o := map[string]any{pick(r, "ts", "time", "timestamp", "@timestamp"): ts, "n": n}
	if r.IntN(10) > 0 {
		o[pick(r, "level", "severity", "lvl")] = pick(r, "trace", "debug", "info", "info", "warn", "WARNING", "error", "err", "notice", "crit")
	}
	if r.IntN(10) > 0 {
		o[pick(r, "service", "logger", "component")] = pick(r, "auth", "auth", "tor", "lanes", "gate way")
	}
	if r.IntN(4) > 0 {
		o["event"] = pick(r, "ping", "auth.refused", "auth.ok", "lane.changed")
	}
	if r.IntN(3) > 0 {
		o[pick(r, "msg", "message")] = pick(r, "sign-in refused", "Sign-in ok", "über 3 peers", "a\x1b[31m red", "it's <b>bold</b>; DROP TABLE x") + pick(r, "", " again", fmt.Sprint(" from 10.8.1.", r.IntN(200)))
	}
	if r.IntN(3) > 0 {
		o[pick(r, "user", "username")] = pick(r, "alice", "alice", "bob", "Carol", "dörte")
	}
	if r.IntN(4) == 0 {
		o["device"], o[pick(r, "session", "session_id")] = fmt.Sprint("d", r.IntN(90)), fmt.Sprintf("%08x", r.Uint32())
	}
	if r.IntN(5) == 0 {
		o[pick(r, "request_id", "trace_id", "req_id")] = fmt.Sprintf("%016x", r.Uint64())
	}
	if r.IntN(2) == 0 {
		o["dur_ms"] = pick[any](r, r.IntN(3000), float64(r.IntN(9000))/8, "slow")
	}
	if r.IntN(5) == 0 {
		o["peer"] = map[string]any{"ip": fmt.Sprint("10.8.0.", r.IntN(9)), "port": r.IntN(65536)}
	}
	if r.IntN(8) == 0 {
		o["ok"], o["tags"] = r.IntN(2) == 0, []any{"x", r.IntN(3)}
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func pick[T any](r *rand.Rand, s ...T) T { return s[r.IntN(len(s))] }

// condition is a term of a query, and the same said in Go.
type condition struct {
	text  string
	holds func(fact) bool
}

func (f fact) has(name string) bool { _, ok := f.values[name]; return ok }

func (f fact) says(phrase string) bool {
	return slices.ContainsFunc(f.text, func(t string) bool { return strings.Contains(t, phrase) })
}

func compares(op string, c int) bool {
	return strings.HasPrefix(op, ">") && c > 0 || strings.HasPrefix(op, "<") && c < 0 || strings.HasSuffix(op, "=") && c == 0
}

func randomCondition(r *rand.Rand, dir string) condition {
	is := func(name string, values ...string) condition {
		return condition{name + "=" + strings.Join(values, ","), func(f fact) bool {
			v, ok := f.values[name]
			return ok && slices.ContainsFunc(values, func(w string) bool { return strings.Trim(w, `"`) == v })
		}}
	}
	begins := func(name, with string) condition {
		return condition{name + "=" + with + "*", func(f fact) bool { return f.has(name) && strings.HasPrefix(f.values[name], with) }}
	}
	word := func(text, found string) condition {
		return condition{text, func(f fact) bool { return f.says(found) }}
	}
	op := pick(r, ">=", "<=", ">", "<")
	switch r.IntN(14) {
	case 0:
		return is("service", pick(r, []string{"auth"}, []string{"tor", "lanes"}, []string{`"gate way"`}, []string{"plain"}, []string{"absent"})...)
	case 1:
		level := pick(r, grave...)
		return condition{"level" + op + level, func(f fact) bool {
			return f.has("level") && compares(op, cmp.Compare(slices.Index(grave, f.values["level"]), slices.Index(grave, level)))
		}}
	case 2:
		return is("level", pick(r, grave...), pick(r, grave...))
	case 3:
		return is("user", pick(r, []string{"alice"}, []string{"alice", "bob"}, []string{"carol"}, []string{"Carol", "dörte"})...)
	case 4:
		return begins("event", pick(r, "auth.", "lane", "x"))
	case 5:
		return begins(pick(r, "user", "device", "session", "request_id", "peer.ip", "ok", "tags", "absent"), "")
	case 6:
		return begins("device", pick(r, "d1", "d9", "e"))
	case 7:
		limit := r.IntN(3000)
		return condition{fmt.Sprint("dur_ms", op, limit), func(f fact) bool {
			n, err := strconv.ParseFloat(f.values["dur_ms"], 64)
			return err == nil && compares(op, cmp.Compare(n, float64(limit)))
		}}
	case 8:
		return is("peer.ip", "10.8.0."+strconv.Itoa(r.IntN(10)))
	case 9:
		return pick(r, is("ok", "true"), is("dur_ms", "slow"), is("n", strconv.Itoa(r.IntN(4000))))
	case 10:
		return pick(r, is("file", filepath.Join(dir, "plain.log")), begins("file", filepath.Join(dir, "sub")))
	case 11:
		return pick(r, word("refused", " refused "), word("REFUSED", " refused "), word("über", " über "), word("d7", " d7 "), word("absent", " absent "), word("drop", " drop "))
	case 12:
		return pick(r, word("ref*", " ref"), word("10*", " 10"), word("lane*", " lane"))
	}
	return pick(r, word(`"sign-in refused"`, " sign in refused "), word(`"10.8.1"`, " 10 8 1 "), word(`"came back"`, " came back "), word(`"refused sign"`, " refused sign "))
}

func randomQuery(r *rand.Rand, dir string, from, to time.Time) (string, func(fact) bool) {
	var parts []string
	var all []func(fact) bool
	for range r.IntN(4) {
		c := randomCondition(r, dir)
		if r.IntN(3) == 0 {
			parts, all = append(parts, "!"+c.text), append(all, func(f fact) bool { return !c.holds(f) })
		} else {
			parts, all = append(parts, c.text), append(all, c.holds)
		}
	}
	moment := func() time.Time { return from.Add(time.Duration(r.Int64N(int64(to.Sub(from))))).Truncate(time.Second) }
	since, until := moment(), moment()
	if until.Before(since) {
		since, until = until, since
	}
	if r.IntN(3) == 0 {
		parts, all = append(parts, "since="+since.Format(time.RFC3339)), append(all, func(f fact) bool { return !f.at.Before(since) })
	}
	if r.IntN(3) == 0 && since.Before(until) {
		parts, all = append(parts, "until="+until.Format(time.RFC3339)), append(all, func(f fact) bool { return f.at.Before(until) })
	}
	return strings.Join(parts, " "), func(f fact) bool {
		return !slices.ContainsFunc(all, func(holds func(fact) bool) bool { return !holds(f) })
	}
}

// Files with lines of every kind are written, taken in by the running service, and
// asked about over its socket. What must come out is found by reading the files
// with nothing of ours.
func TestAnswersEqualTheRawFiles(t *testing.T) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(4, 4))
	const lines = 4000
	from := time.Now().UTC().Add(-60 * time.Hour).Truncate(time.Microsecond)
	last := from
	for n := range lines {
		last = last.Add(time.Duration(1+r.IntN(90_000_000)) * time.Microsecond)
		name := pick(r, "a.jsonl", "auth.log", "sub/b.log", "sub/deep/c.json")
		line := rawLine(r, last, n)
		if line[0] != '{' {
			name = "plain.log"
		}
		w.write(name, line)
	}
	w.waitFor("", lines)
	have := facts(t, w.dir)
	hits := 0
	for range 1000 {
		text, holds := randomQuery(r, w.dir, from, last)
		var want []fact
		for _, f := range have {
			if holds(f) {
				want = append(want, f)
			}
		}
		if len(want) > 0 && len(want) < len(have) {
			hits++
		}
		w.answers(r, text, want)
	}
	if hits < 400 {
		t.Errorf("only %d of 1000 queries found something", hits)
	}
}

// answers puts a query to the service in one or two ways.
func (w *world) answers(r *rand.Rand, text string, want []fact) {
	w.t.Helper()
	ctx, ask := w.t.Context(), api.Ask{Query: text}
	same := func(what string, got, want any, err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatalf("%s of %s: %v", what, text, err)
		}
		if d := gocmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			w.t.Fatalf("%s of %s (-want +got):\n%.3000s", what, text, d)
		}
	}
	same("count", w.count(text), int64(len(want)), nil)
	switch r.IntN(6) {
	case 0: // all pages
		req := &api.QueryRequest{Ask: ask, Limit: 1 + r.IntN(1+len(want)/3), Order: pick(r, "newest", "oldest")}
		var times, expect []time.Time
		for {
			page := w.query(req)
			for _, rec := range page.Items {
				times = append(times, rec.Time)
			}
			if req.After = page.Next; req.After == "" {
				break
			}
		}
		for _, f := range want {
			expect = append(expect, f.at)
		}
		if req.Order == "newest" {
			slices.Reverse(expect)
		}
		same("query", times, expect, nil)
	case 1: // whole records
		var got, expect []map[string]string
		err := api.Export.Follow(ctx, w.conn, &ask, func(rec api.Record) error {
			m := map[string]string{}
			for name, v := range map[string]string{"level": rec.Level, "service": rec.Service, "event": rec.Event, "message": rec.Message, "user": rec.User,
				"device": rec.Device, "session": rec.Session, "request_id": rec.RequestID, "file": rec.File} {
				if v != "" {
					m[name] = v
				}
			}
			object := map[string]any{}
			if len(rec.Fields) > 0 {
				d := json.NewDecoder(bytes.NewReader(rec.Fields))
				d.UseNumber()
				if err := d.Decode(&object); err != nil {
					return err
				}
			}
			for name, v := range object {
				if list, ok := v.([]any); ok {
					b, _ := json.Marshal(list)
					v = string(b)
				}
				m[name] = fmt.Sprint(v)
			}
			got = append(got, m)
			return nil
		})
		for _, f := range want {
			expect = append(expect, f.values)
		}
		if !errors.Is(err, rpc.ErrEnded) {
			w.t.Fatalf("export of %s: %v", text, err)
		}
		same("export", got, expect, nil)
	case 2:
		by := pick(r, []string{"service"}, []string{"level"}, []string{"service", "level"}, []string{"user", "event", "ok"}, []string{"dur_ms"}, []string{"peer.ip", "service"})
		got, err := api.Stats.Call(ctx, w.conn, &api.StatsRequest{Ask: ask, By: by, Limit: 10_000})
		same("stats", items(got), groups(want, false, by...), err)
	case 3:
		field := pick(r, "service", "level", "user", "device", "dur_ms", "message", "request_id", "peer.ip", "absent")
		got, err := api.Top.Call(ctx, w.conn, &api.TopRequest{Ask: ask, Field: field, Limit: 10})
		expect := groups(want, true, field)
		same("top "+field, items(got), expect[:min(10, len(expect))], err)
	case 4:
		width := pick(r, 60, 90, 300, 3600, 7*3600, 86400)
		by := pick(r, "", "level", "service", "user", "peer.ip")
		got, err := api.Histogram.Call(ctx, w.conn, &api.HistogramRequest{Ask: ask, Bucket: width, By: by})
		same(fmt.Sprint("histogram ", width, " by ", by), items(got), buckets(want, int64(width), by), err)
	case 5:
		n, svc := map[string]int64{}, map[string]api.ServiceLines{}
		for _, f := range want {
			for name := range f.values {
				n[name]++
			}
			s := svc[f.values["service"]]
			s.Name, s.Count, s.Last = f.values["service"], s.Count+1, f.at
			if l := f.values["level"]; l == "error" || l == "fatal" {
				s.Errors++
			}
			svc[s.Name] = s
		}
		var names []api.Field
		for name, c := range n {
			names = append(names, api.Field{Name: name, Count: c})
		}
		slices.SortFunc(names, func(a, b api.Field) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
		got, err := api.Fields.Call(ctx, w.conn, &ask)
		same("fields", items(got), names, err)
		services, err := api.Services.Call(ctx, w.conn, &ask)
		same("services", items(services), slices.SortedFunc(maps.Values(svc), func(a, b api.ServiceLines) int { return cmp.Compare(a.Name, b.Name) }), err)
	}
}

func groups(lines []fact, present bool, by ...string) (out []api.Group) {
	found := map[string]*api.Group{}
	for _, f := range lines {
		var values []string
		whole := true
		for _, name := range by {
			values, whole = append(values, f.values[name]), whole && f.has(name)
		}
		if present && !whole {
			continue
		}
		key := fmt.Sprintf("%q", values)
		if found[key] == nil {
			found[key] = &api.Group{Values: values, First: f.at}
		}
		found[key].Count++
		found[key].Last = f.at
	}
	for _, g := range found {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b api.Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Values, b.Values))
	})
	return out
}

func buckets(lines []fact, width int64, by string) (out []api.Bucket) {
	for _, f := range lines {
		start := time.Unix(f.at.Unix()/width*width, 0).UTC()
		for len(out) > 0 && out[len(out)-1].Start.Before(start) {
			out = append(out, api.Bucket{Start: out[len(out)-1].Start.Add(time.Duration(width) * time.Second)})
		}
		if len(out) == 0 {
			out = append(out, api.Bucket{Start: start})
		}
		b := &out[len(out)-1]
		b.Count++
		if by != "" {
			if b.By == nil {
				b.By = map[string]int64{}
			}
			b.By[f.values[by]]++
		}
	}
	return out
}

func items[T any](l *rpc.List[T]) []T {
	if l == nil {
		return nil
	}
	return l.Items
}
