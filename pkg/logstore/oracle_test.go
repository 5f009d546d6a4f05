package logstore_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vpnd/pkg/logline"
	"vpnd/pkg/logquery"
	"vpnd/pkg/logstore"
)

// base is the first day of the tests' records.
var base = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func pick[T any](r *rand.Rand, s ...T) T { return s[r.IntN(len(s))] }

// record makes one of the kinds of records that a store can meet.
func record(r *rand.Rand, at time.Time) logline.Record {
	rec := logline.Record{
		Time: at, Level: logline.Level(r.IntN(7)), Service: pick(r, "auth", "auth", "tor", "lanes", "gate way", ""),
		Event: pick(r, "ping", "login", "sign-in", ""), File: pick(r, "/var/log/a.log", "/var/log/b.jsonl"), Cut: r.IntN(50) == 0,
	}
	if r.IntN(40) == 0 {
		rec.Service = "rare" + strconv.Itoa(r.IntN(3))
	}
	if r.IntN(3) > 0 {
		rec.User = pick(r, "alice", "bob", "Carol", "dörte", "eve x")
	}
	if r.IntN(4) == 0 {
		rec.Device, rec.Session = "d"+strconv.Itoa(r.IntN(400)), fmt.Sprintf("%08x", r.Uint32())
	}
	if r.IntN(3) == 0 {
		rec.RequestID = fmt.Sprintf("%016x", r.Uint64())
	}
	if r.IntN(5) > 0 {
		rec.Message = fmt.Sprintf("%s %s from 10.8.%d.%d %s", pick(r, "sign-in", "Sign in", "peer"), pick(r, "refused", "ACCEPTED", "ok", "Über ok"),
			r.IntN(3), r.IntN(256), pick(r, "", "wörter", "a\x1b[31m", strings.Repeat("long", 20)))
	}
	add := func(k, v string, kind logline.Kind) {
		rec.Fields = append(rec.Fields, logline.Field{Key: k, Value: v, Kind: kind})
	}
	if r.IntN(2) == 0 {
		add("dur_ms", strconv.Itoa(r.IntN(3000)), logline.Number)
	}
	if r.IntN(2) == 0 {
		add("bytes", pick(r, strconv.Itoa(r.IntN(1<<30)-1000), "1e3", "-0", "007", ""), logline.Number)
	}
	if r.IntN(6) == 0 {
		add("peer.ip", fmt.Sprintf("10.8.%d.%d", r.IntN(2), r.IntN(9)), logline.String)
	}
	if r.IntN(8) == 0 {
		add("ok", pick(r, "true", "false"), logline.Bool)
		add("list", `["x",1]`, logline.JSON)
	}
	if r.IntN(30) == 0 { // known names once more, and one name twice
		add(pick(r, "level", "service", "user", "file", "event"), pick(r, "odd", "auth", "alice"), logline.String)
		add("dur_ms", strconv.Itoa(r.IntN(3000)), logline.Number)
	}
	if r.IntN(200) == 0 {
		add("seldom"+strconv.Itoa(r.IntN(9)), pick(r, "x", "yy"), logline.String)
	}
	return rec
}

func query(r *rand.Rand, now time.Time) string {
	term := func() string {
		return pick(r,
			"service="+pick(r, "auth", "tor", "auth,lanes", `"gate way"`, "rare1", "absent", "rare*", "*", "odd"),
			"level"+pick(r, ">=", "<", "=", ">", "<=")+pick(r, "warn", "info", "fatal", "trace"),
			"user="+pick(r, "alice", "alice,bob", "Carol", "carol", "dörte", "a*", "nobody", `"eve x"`, "*"),
			"event="+pick(r, "ping", "sign-in", "sign*", "login,ping"),
			"file="+pick(r, "/var/log/a.log", "/var/log/*", "odd"),
			"device="+pick(r, "d7", "d1*", "d7,d8,d9,d10"),
			"dur_ms"+pick(r, ">", ">=", "<", "<=", "=")+strconv.Itoa(r.IntN(3000)),
			"bytes"+pick(r, ">1000", "=1e3", "<0", "=007", "=*"),
			"peer.ip="+pick(r, "10.8.1.3", "10.8.0.*", "*"),
			"seldom"+strconv.Itoa(r.IntN(9))+"="+pick(r, "x", "yy", "*"),
			"ok=true", "request_id=*", "message=*", "session=*", "user=*",
			"dur_ms"+pick(r, ">99999", "<0", ">=0", "<=2999", ">2998.5", "=3000", "=12", "=1*"),
			"seldom"+strconv.Itoa(r.IntN(9))+pick(r, ">1", "=a", "=z"), "absent"+pick(r, "=x", ">1", "=*"),
			"device="+pick(r, "sign", "ok", "z"), "session="+pick(r, "0*", "zz", "refused"),
			pick(r, "refused", "REFUSED", "sign", "über", "wörter", "ok", "absent", "x", "d7", "255", "ref*", "10*", "ü*", "longlong*"),
			`"`+pick(r, "sign-in refused", "sign in", "10.8.1", "peer ok from", "in sign", "eve x")+`"`,
		)
	}
	var parts []string
	for range r.IntN(4) {
		parts = append(parts, pick(r, "", "", "!")+term())
	}
	at := func(hours int) string {
		return now.Add(-time.Duration(hours)*time.Hour - time.Duration(r.IntN(36*3600))*time.Second).Format(time.RFC3339)
	}
	if r.IntN(3) == 0 {
		parts = append(parts, "since="+pick(r, at(37), base.Add(24*time.Hour).Format(time.RFC3339)))
	}
	if r.IntN(3) == 0 {
		parts = append(parts, "until="+pick(r, at(0), base.Add(42*time.Hour).Format(time.RFC3339)))
	}
	return strings.Join(parts, " ")
}

// oracle answers with a few obvious lines over all records.
type oracle []logstore.Found

func (o oracle) match(q logquery.Query) oracle {
	var out oracle
	match := q.Matcher()
	for _, f := range o {
		if match(&f.Record) {
			out = append(out, f)
		}
	}
	return out
}

func (o oracle) stats(present bool, by ...string) (groups []logstore.Group, total int64) {
	n := map[string]*logstore.Group{}
	for _, f := range o {
		var values []string
		all := true
		for _, name := range by {
			v, ok := f.Record.Get(name)
			values, all = append(values, v), all && ok
		}
		if present && !all {
			continue
		}
		total++
		key := fmt.Sprintf("%q", values)
		if n[key] == nil {
			n[key] = &logstore.Group{Values: values, First: f.Record.Time, Last: f.Record.Time}
		}
		g := n[key]
		g.Count++
		if f.Record.Time.Before(g.First) {
			g.First = f.Record.Time
		}
		if f.Record.Time.After(g.Last) {
			g.Last = f.Record.Time
		}
	}
	for _, g := range n {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b logstore.Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Values, b.Values))
	})
	return groups, total
}

func (o oracle) histogram(bucket time.Duration, by string) []logstore.Bin {
	type key struct {
		start int64
		value string
	}
	n := map[key]int64{}
	for _, f := range o {
		v := ""
		if by != "" {
			v, _ = f.Record.Get(by)
		}
		us := f.Record.Time.UnixMicro()
		n[key{us - us%bucket.Microseconds(), v}]++
	}
	var out []logstore.Bin
	for k, c := range n {
		out = append(out, logstore.Bin{Start: time.UnixMicro(k.start).UTC(), Value: k.value, Count: c})
	}
	slices.SortFunc(out, func(a, b logstore.Bin) int { return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Value, b.Value)) })
	return out
}

func (o oracle) fields() []logstore.FieldCount {
	n := map[string]int64{}
	for _, f := range o {
		names := map[string]bool{}
		for name := range f.Record.Pairs() {
			names[name] = true
		}
		names["level"] = names["level"] || f.Record.Level != logline.Unknown
		for name, has := range names {
			if has {
				n[name]++
			}
		}
	}
	var out []logstore.FieldCount
	for name, c := range n {
		out = append(out, logstore.FieldCount{Name: name, Count: c})
	}
	slices.SortFunc(out, func(a, b logstore.FieldCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (o oracle) services() []logstore.ServiceCount {
	n := map[string]*logstore.ServiceCount{}
	for _, f := range o {
		name, _ := f.Record.Get("service")
		if n[name] == nil {
			n[name] = &logstore.ServiceCount{Name: name, Last: f.Record.Time}
		}
		c := n[name]
		c.Count++
		switch level, _ := f.Record.Get("level"); level {
		case "warn":
			c.Warnings++
		case "error", "fatal":
			c.Errors++
		}
		if f.Record.Time.After(c.Last) {
			c.Last = f.Record.Time
		}
	}
	var out []logstore.ServiceCount
	for _, c := range n {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b logstore.ServiceCount) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func openStore(t testing.TB, o logstore.Options) *logstore.Store {
	t.Helper()
	s, err := logstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// feed appends records in batches and keeps what the store must then have.
type feed struct {
	s    *logstore.Store
	pos  int64
	seq  map[logstore.Day]int64
	have oracle
}

var source = logstore.FileID{Dev: 1, Ino: 2, Path: "/var/log/a.log"}

func (f *feed) append(t testing.TB, recs []logline.Record) {
	t.Helper()
	b := logstore.Batch{File: source, From: f.pos}
	for _, rec := range recs {
		f.pos += 100
		b.Rows = append(b.Rows, logstore.Row{Offset: f.pos, Record: rec})
		day := logstore.DayOf(rec.Time)
		f.have = append(f.have, logstore.Found{ID: logstore.ID{Time: rec.Time.UnixMicro(), Seq: f.seq[day]}, Record: rec})
		f.seq[day]++
	}
	b.To = f.pos
	if err := f.s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func (f *feed) sort() {
	slices.SortFunc(f.have, func(a, b logstore.Found) int {
		return cmp.Or(cmp.Compare(a.ID.Time, b.ID.Time), cmp.Compare(a.ID.Seq, b.ID.Seq))
	})
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := gocmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		if len(d) > 3000 {
			d = d[:3000]
		}
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func TestEveryOperationEqualsAnOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	f := &feed{s: openStore(t, logstore.Options{Dir: t.TempDir()}), seq: map[logstore.Day]int64{}}
	f.s.SetChunkRows(150) // so that there are segments of many
	at := base.Add(20 * time.Hour)
	now := base.Add(72 * time.Hour)
	var batch []logline.Record
	for i := range 11_000 {
		at = at.Add(time.Duration(r.IntN(3_400_000)) * time.Microsecond)
		when := at
		if r.IntN(10) == 0 {
			when = at.Add(-time.Duration(r.IntN(3600*10)) * time.Second) // late
		}
		if r.IntN(10) == 0 {
			when = when.Truncate(time.Minute) // same time as others
		}
		rec := record(r, when)
		if i/1000%2 == 0 { // else no roll-up could answer
			rec.Fields = slices.DeleteFunc(rec.Fields, func(f logline.Field) bool { return f.Key == "service" || f.Key == "level" })
		}
		batch = append(batch, rec)
		if r.IntN(100) == 0 || i == 10_999 {
			f.append(t, batch)
			batch = nil
		}
		if i == 6_000 || i == 9_000 || i == 10_000 {
			if _, err := f.s.Retain(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.s.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.s.Chunks(t); slices.Max(n) < 16 || slices.Min(n) > 5 {
		t.Errorf("segments of %v chunks: neither full nor small ones are asked", n)
	}
	f.sort()
	asked, hits := 0, 0
	for asked < 1000 {
		text := query(r, now)
		q, err := logquery.Parse(text, now)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		asked++
		want := f.have.match(q)
		if len(want) > 0 && len(want) < len(f.have) {
			hits++
		}
		compare(t, r, f.s, text, q, want)
	}
	if hits < 400 {
		t.Errorf("only %d of %d queries found something", hits, asked)
	}
}

func compare(t *testing.T, r *rand.Rand, s *logstore.Store, text string, q logquery.Query, want oracle) {
	t.Helper()
	ctx, all := t.Context(), logstore.Limits{}
	n, err := s.Count(ctx, q, all)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "count "+text, n, int64(len(want)))
	switch r.IntN(5) {
	case 0, 1:
		pages(t, s, text, q, want, r.IntN(2) == 0, pick(r, 1+len(want)/7, 1+len(want)/3, 10_000))
	case 2:
		by := pick(r, []string{"service"}, []string{"level"}, []string{"service", "level"}, []string{"user", "event", "ok"}, []string{"dur_ms"}, []string{"seldom3", "service"}, []string{"bytes", "peer.ip"})
		got, total, err := s.Stats(ctx, q, all, by...)
		if err != nil {
			t.Fatal(err)
		}
		groups, sum := want.stats(false, by...)
		equal(t, fmt.Sprint("stats ", by, " ", text), got, groups[:min(len(groups), logstore.MaxRows)])
		equal(t, "total", total, sum)
		field := pick(r, "service", "level", "user", "device", "dur_ms", "seldom1", "message", "request_id", "peer.ip", "absent")
		top, total, err := s.Top(ctx, q, all, field, 10)
		if err != nil {
			t.Fatal(err)
		}
		groups, sum = want.stats(true, field)
		equal(t, "top "+field+" "+text, top, append([]logstore.Group{}, groups[:min(len(groups), 10)]...))
		equal(t, "total", total, sum)
	case 3:
		bucket := pick(r, time.Minute, 5*time.Minute, 7*time.Minute, time.Hour, 24*time.Hour, 90*time.Second, 1234567*time.Microsecond)
		by := pick(r, "", "level", "service", "user", "peer.ip", "dur_ms")
		got, err := s.Histogram(ctx, q, all, bucket, by)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprint("histogram ", bucket, " ", by, " ", text), got, append([]logstore.Bin{}, want.histogram(bucket, by)...))
	case 4:
		got, err := s.Fields(ctx, q, all)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "fields "+text, got, append([]logstore.FieldCount{}, want.fields()...))
		services, err := s.Services(ctx, q, all)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "services "+text, services, want.services())
	}
}

func pages(t *testing.T, s *logstore.Store, text string, q logquery.Query, want oracle, oldest bool, size int) {
	t.Helper()
	want = slices.Clone(want)
	if !oldest {
		slices.Reverse(want)
	}
	var got oracle
	p := logstore.Page{Oldest: oldest}
	for {
		res, err := s.Query(t.Context(), q, p, logstore.Limits{Rows: size})
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Rows) > size {
			t.Fatalf("%d rows on a page of %d", len(res.Rows), size)
		}
		got = append(got, res.Rows...)
		if res.Next == "" {
			break
		}
		p.Cursor = res.Next
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", text, len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			equal(t, fmt.Sprintf("row %d of %s", i, text), got[i], want[i])
		}
	}
}
