package logs_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/logs"
)

// story writes what the questions of the tests are about.
func (w *world) story() {
	w.t.Helper()
	w.write("auth/auth.log",
		`{"ts":"`+at(0)+`","level":"INFO","service":"auth","event":"auth.signed_in","user":"alice","dur_ms":212,"req":{"ip":"192.0.2.1"}}`,
		`{"ts":"`+at(time.Minute)+`","level":"WARN","service":"auth","event":"auth.refused","user":"bob","dur_ms":90,"message":"sign-in refused"}`,
		`{"ts":"`+at(5*time.Minute)+`","level":"ERROR","service":"auth","event":"auth.refused","user":"bob","dur_ms":300}`)
	w.write("users/users.log",
		`{"ts":"`+at(2*time.Minute)+`","level":"info","service":"users","event":"user.created","user":"alice","a":"1","a":"2","list":[1,"x"],"n":null}`,
		`plain words about alice`)
	w.waitFor("", 5)
}

func TestEveryQuestion(t *testing.T) {
	w := newWorld(t)
	w.story()
	ctx := t.Context()

	l := w.query(&api.QueryRequest{Ask: api.Ask{Query: "user=alice"}})
	if len(l.Items) != 2 || l.Items[0].Service != "users" || l.Items[1].Event != "auth.signed_in" || l.Items[1].Level != "info" {
		t.Fatalf("newest first: %+v", l.Items)
	}
	if got, want := string(l.Items[0].Fields), `{"a":"1","a~2":"2","list":[1,"x"],"n":null}`; got != want {
		t.Errorf("fields %s, want %s", got, want)
	}
	if got, want := string(l.Items[1].Fields), `{"dur_ms":212,"req.ip":"192.0.2.1"}`; got != want {
		t.Errorf("fields %s, want %s", got, want)
	}
	if want := filepath.Join(w.dir, "users/users.log"); l.Items[0].File != want {
		t.Errorf("file %s, want %s", l.Items[0].File, want)
	}
	var seen []string
	req := &api.QueryRequest{Limit: 2, Order: "oldest"}
	for pages := 0; ; pages++ {
		l := w.query(req)
		for _, r := range l.Items {
			seen = append(seen, r.ID)
		}
		if req.After = l.Next; l.Next == "" || pages > 5 {
			break
		}
	}
	var exported []string
	err := api.Export.Follow(ctx, w.conn, nil, func(r api.Record) error { exported = append(exported, r.ID); return nil })
	if len(seen) != 5 || !cmp.Equal(seen, exported) || !errors.Is(err, fault.Unavailable) {
		t.Errorf("pages give %v, export %v, %v", seen, exported, err)
	}
	for query, n := range map[string]int64{`"sign-in refused"`: 1, "level>=warn": 2, "dur_ms>200": 2, "alice": 3, "service=users": 2, "!user=*": 1, "nothing": 0} {
		if got := w.count(query); got != n {
			t.Errorf("%s: %d lines, want %d", query, got, n)
		}
	}

	stats, err := api.Stats.Call(ctx, w.conn, &api.StatsRequest{Ask: api.Ask{Query: "service=auth"}, By: []string{"event", "user"}})
	if err != nil || stats.Total != 2 || stats.Items[0].Count != 2 || !cmp.Equal(stats.Items[0].Values, []string{"auth.refused", "bob"}) ||
		stats.Items[0].First.Format(time.RFC3339Nano) != at(time.Minute) || stats.Items[0].Last.Format(time.RFC3339Nano) != at(5*time.Minute) {
		t.Errorf("stats %+v, %v", stats, err)
	}
	if stats, err = api.Stats.Call(ctx, w.conn, &api.StatsRequest{By: []string{"user"}, Limit: 1}); err != nil || len(stats.Items) != 1 || stats.Total != 3 {
		t.Errorf("one of three groups: %+v, %v", stats, err)
	}
	top, err := api.Top.Call(ctx, w.conn, &api.TopRequest{Field: "user"})
	if err != nil || top.Total != 2 || top.Items[0].Count != 2 || top.Items[0].First.IsZero() {
		t.Errorf("top %+v, %v", top, err)
	}
	h, err := api.Histogram.Call(ctx, w.conn, &api.HistogramRequest{Ask: api.Ask{Query: "service=auth"}, Bucket: 60, By: "level"})
	if err != nil || len(h.Items) != 6 || h.Items[0].By["info"] != 1 || h.Items[2].Count != 0 || h.Items[5].By["error"] != 1 {
		t.Errorf("histogram %+v, %v", h, err)
	}
	f, err := api.Fields.Call(ctx, w.conn, &api.Ask{Query: "service=auth"})
	names := map[string]int64{}
	for _, v := range f.Items {
		names[v.Name] = v.Count
	}
	if err != nil || names["dur_ms"] != 3 || names["message"] != 1 || names["req.ip"] != 1 {
		t.Errorf("fields %v, %v", names, err)
	}
	s, err := api.Services.Call(ctx, w.conn, nil)
	if err != nil || len(s.Items) != 2 || s.Items[0].Name != "auth" || s.Items[0].Count != 3 || s.Items[0].Errors != 1 ||
		s.Items[0].Last.Format(time.RFC3339Nano) != at(5*time.Minute) {
		t.Errorf("services %+v, %v", s, err)
	}
	var st *api.Status
	eventually(t, "the count of all lines", func() bool {
		st, err = api.GetStatus.Call(ctx, w.conn, nil)
		return err != nil || st.LinesIn == 5 && st.LagMs == 0
	})
	if err != nil || st.Rows != 5 || st.LinesIn != 5 || st.BytesIn == 0 || st.Bytes == 0 || st.Oldest == nil || len(st.Files) != 2 || st.Files[0].Offset != st.Files[0].Size || st.Problem != "" {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestAPurgeSaysFirstWhatItWouldRemove(t *testing.T) {
	w := newWorld(t)
	w.story()
	purge := func(query string, dry bool) (*api.Purged, error) {
		req := &api.PurgeRequest{}
		req.Body.Query, req.Body.DryRun = query, dry
		return api.Purge.Call(t.Context(), w.conn, req)
	}
	for _, empty := range []string{" ", "since=", `user="`} {
		if got, err := purge(empty, false); err == nil || !errors.Is(err, fault.Invalid) {
			t.Errorf("purge %q: %+v, %v", empty, got, err)
		}
	}
	p, err := purge("user=bob", true)
	if err != nil || p.Rows != 2 || !p.DryRun || len(p.Days) == 0 || w.count("") != 5 {
		t.Errorf("dry run %+v, %v", p, err)
	}
	if p, err = purge("user=bob", false); err != nil || p.Rows != 2 || p.DryRun {
		t.Errorf("purge %+v, %v", p, err)
	}
	if p, err = purge("user=bob", false); err != nil || p.Rows != 0 || p.Days == nil {
		t.Errorf("purge of nothing %+v, %v", p, err)
	}
	if w.count("") != 3 || w.count("user=bob") != 0 {
		t.Error("something else was removed")
	}
	w.stop()
	w.start()
	if w.count("") != 3 {
		t.Error("what was purged is taken in again")
	}
}

func TestMistakesNameTheirPlace(t *testing.T) {
	w := newWorld(t)
	for _, q := range []string{`user="alice`, "level>=loud", strings.Repeat("x ", 300), strings.Repeat("x", 65<<10)} {
		_, err := api.Count.Call(t.Context(), w.conn, &api.Ask{Query: q})
		if f := fault.From(err); !errors.Is(err, fault.Invalid) || len(f.Fields) == 0 && len(q) < 1000 {
			t.Errorf("%.20s: %v", q, err)
		}
		if len(q) < 1000 {
			err = api.Follow.Follow(t.Context(), w.conn, &api.FollowRequest{Ask: api.Ask{Query: q}}, nil)
			if !errors.Is(err, fault.Invalid) {
				t.Errorf("follow %.20s: %v", q, err)
			}
		}
	}
	for _, since := range []string{"x", "../..", "1", "-1.-1"} {
		err := api.Follow.Follow(t.Context(), w.conn, &api.FollowRequest{Since: since}, nil)
		if f := fault.From(err); !errors.Is(err, fault.Invalid) || len(f.Fields) == 0 {
			t.Errorf("follow since %q: %v", since, err)
		}
	}
	if _, err := api.Query.Call(t.Context(), w.conn, &api.QueryRequest{After: "zz"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a cursor of nobody's: %v", err)
	}
	w.story()
	w.write("old.log", `{"ts":"2020-01-01T00:00:00Z","event":"old"}`)
	w.waitFor("", 6)
	if _, err := api.Histogram.Call(t.Context(), w.conn, &api.HistogramRequest{Bucket: 1}); !errors.Is(err, fault.Invalid) || fault.From(err).Hint == "" {
		t.Errorf("millions of buckets: %v", err)
	}
}

func TestSavedQueries(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	save := func(name, query string) (*api.Saved, error) {
		r := &api.SaveRequest{SavedRef: api.SavedRef{Name: name}}
		r.Body.Query = query
		return api.Save.Call(ctx, w.conn, r)
	}
	for _, name := range []string{"a/b", "..", "-x", strings.Repeat("n", 65), "a b", "a\x00"} {
		if _, err := save(name, "user=alice"); !errors.Is(err, fault.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, err := save("bad", `user="`); !errors.Is(err, fault.Invalid) {
		t.Errorf("a query that is none: %v", err)
	}
	first, err := save("refused", `level>=warn "sign-in refused" since=1h`)
	if err != nil || first.Runs != 0 || first.LastRun != nil || first.CreatedAt.IsZero() {
		t.Fatalf("saved %+v, %v", first, err)
	}
	for range 3 {
		if _, err := api.RunSaved.Call(ctx, w.conn, &api.SavedRef{Name: "refused"}); err != nil {
			t.Fatal(err)
		}
	}
	w.stop()
	w.start()
	again, err := save("refused", "level>=error")
	if err != nil || again.Query != "level>=error" || again.Runs != 3 || again.LastRun == nil || !again.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("saved again %+v, %v", again, err)
	}
	l, err := api.ListSaved.Call(ctx, w.conn, nil)
	if err != nil || l.Total != 1 || l.Items[0].Name != "refused" {
		t.Errorf("list %+v, %v", l, err)
	}
	if _, err := api.DeleteSaved.Call(ctx, w.conn, &api.SavedRef{Name: "refused"}); err != nil {
		t.Error(err)
	}
	_, err = api.DeleteSaved.Call(ctx, w.conn, &api.SavedRef{Name: "refused"})
	_, err2 := api.RunSaved.Call(ctx, w.conn, &api.SavedRef{Name: "refused"})
	if !errors.Is(err, fault.NotFound) || !errors.Is(err2, fault.NotFound) {
		t.Errorf("of what is gone: %v, %v", err, err2)
	}
}

func TestItsOwnFolderIsNotTakenIn(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, watched := range []string{dir, filepath.Join(dir, "days"), link} {
		cfg := newWorldConfig(watched)
		_, err := logs.New(t.Context(), cfg, logs.Deps{StateDir: dir, Log: slog.New(slog.DiscardHandler), Publish: func(events.Event) {}})
		if f := fault.From(err); !errors.Is(err, fault.Invalid) || f.Hint == "" || f.Fields[0].Path != "logs.dirs" {
			t.Errorf("%s: %v", watched, err)
		}
	}
	// Above it is allowed; what it writes is left out.
	w := newWorld(t)
	w.stop()
	w.cfg.Dirs = []string{filepath.Dir(w.dir)}
	w.start()
	if err := os.WriteFile(filepath.Join(w.state, "x.log"), []byte("not a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write("a.log", "a line")
	w.waitFor("", 1)
	w.stop()
	w.start()
	w.write("a.log", "another line")
	w.waitFor("", 2)
}

// TestStatusNamesProblems destroys a day and names a folder that is not there.
func TestStatusNamesProblems(t *testing.T) {
	w := newWorld(t)
	w.story()
	date := time.Now().UTC().AddDate(0, 0, -3).Format(time.DateOnly)
	w.write("old.log", `{"ts":"`+date+`T00:00:00Z","event":"old"}`)
	w.waitFor("", 6)
	w.stop()
	day := filepath.Join(w.state, "days", date+".db")
	info, err := os.Stat(day)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, info.Size())
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	if err := os.WriteFile(day, noise, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(filepath.Dir(w.dir), "missing")
	w.cfg.Dirs = append(w.cfg.Dirs, missing)
	w.start()
	var st *api.Status
	eventually(t, "two problems", func() bool {
		st, err = api.GetStatus.Call(t.Context(), w.conn, nil)
		return err == nil && len(st.Problems) == 2
	})
	if got := st.Problems[0]; got.What != "the lines of "+date+" do not answer: their file is damaged and was set aside" || !strings.Contains(got.Hint, filepath.Dir(day)) {
		t.Errorf("of the damaged day: %+v", got)
	}
	if got := st.Problems[1]; got.What != missing+" cannot be read: no such file or directory" || got.Hint == "" {
		t.Errorf("of the missing folder: %+v", got)
	}
	if st.Problem != st.Problems[0].What || !cmp.Equal(st.Dirs, w.cfg.Dirs) || st.Store != w.state || w.count("") != 5 {
		t.Errorf("%d lines; %+v", w.count(""), st)
	}
	if err := errors.Join(os.Remove(day+".damaged"), os.Mkdir(missing, 0o700)); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start()
	eventually(t, "no problem", func() bool {
		st, err = api.GetStatus.Call(t.Context(), w.conn, nil)
		return err == nil && len(st.Problems) == 0 && st.Problem == ""
	})
}

// TestRestartsLoseAndDoubleNothing stops and starts the service while files
// are written, rotated and removed.
func TestRestartsLoseAndDoubleNothing(t *testing.T) {
	w := newWorld(t)
	n := 0
	for round := range 6 {
		for range 300 {
			name := fmt.Sprintf("w%d/w.log", n%3)
			w.write(name, fmt.Sprintf(`{"ts":%q,"event":"n","n":%d}`, time.Now().UTC().Format(time.RFC3339Nano), n))
			n++
		}
		if round%2 == 0 {
			w.waitFor("event=n", int64(n))
			if err := os.Rename(filepath.Join(w.dir, "w0/w.log"), filepath.Join(w.dir, fmt.Sprintf("w0/w.log.%d", round))); err != nil {
				t.Fatal(err)
			}
		}
		w.stop()
		w.start()
	}
	w.waitFor("event=n", int64(n))
	seen := map[string]bool{}
	err := api.Export.Follow(t.Context(), w.conn, nil, func(r api.Record) error { seen[string(r.Fields)] = true; return nil })
	if len(seen) != n {
		t.Errorf("%d of %d different lines, %v", len(seen), n, err)
	}
}
