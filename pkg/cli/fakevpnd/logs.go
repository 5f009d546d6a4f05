package fakevpnd

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// LogLine makes a line of the canned kind. fields is a JSON object, or empty.
func LogLine(id string, before time.Duration, level, service, event, message, user, fields string) logs.Record {
	r := logs.Record{ID: id, Time: ago(before), Level: level, Service: service, Event: event, Message: message, User: user, File: "/var/log/vpnd/" + service + ".log"}
	if fields != "" {
		r.Fields = json.RawMessage(fields)
	}
	return r
}

// logLines are the lines of a new world, the oldest first. Some try to speak
// to the terminal, or to a spreadsheet.
func logLines() []logs.Record {
	out := []logs.Record{
		LogLine("l-01", 26*time.Hour, "info", "sessions", "session.closed", "", "alice", `{"reason":"user","rx_bytes":5242880}`),
		LogLine("l-02", 3*time.Hour, "warn", "users", "user.suspended", "suspended by root", "bob", ""),
		LogLine("l-03", 62*time.Minute, "info", "auth", "auth.signed_in", "signed in", "carol", `{"dur_ms":212,"remote":"203.0.113.9"}`),
		LogLine("l-04", 61*time.Minute, "error", "auth", "auth.refused", "sign-in refused", "bob", `{"dur_ms":148,"remote":"203.0.113.77","tries":3}`),
		LogLine("l-05", 40*time.Minute, "debug", "gateway", "ping", "", "", `{"dur_ms":1.5,"ok":true,"peer":null}`),
		LogLine("l-06", 25*time.Minute, "info", "sessions", "session.opened", "connected", "alice", `{"lane":"vpn","addresses":["10.8.0.2","10.9.0.2"]}`),
		LogLine("l-07", 12*time.Minute, "", "nginx", "", "\x1b]0;owned\a\x1b[31mred\u202e and a line that goes on and on, further than any terminal of eighty columns is wide", "", `{"agent":"=HYPERLINK(\"http://evil\")","a=b":"x=\"y\""}`),
		LogLine("l-08", 9*time.Second, "fatal", "a-service-with-a-long-name", "", "=cmd|' /C calc'!A0", "carol", ""),
	}
	out[0].Device, out[0].Session = "laptop", "ses_alicelaptopold0000"
	out[3].RequestID = "0123456789ab"
	out[5].Device, out[5].Session = "laptop", "ses_alicelaptop0000000"
	out[6].Cut = true
	return out
}

func logStatus() logs.Status {
	return logs.Status{
		Dirs: []string{"/var/log/vpnd"}, Store: "/var/lib/vpnd/logs", Problems: []logs.Problem{},
		Rows: 8, Bytes: 40 << 10, Oldest: ptr(ago(26 * time.Hour)), Newest: ptr(ago(9 * time.Second)), LinesIn: 8, BytesIn: 1900, Rate: 2.5, LagMs: 40, Followers: 1,
		Days: []logs.Day{{Day: "2026-03-13", Rows: 1, Bytes: 12 << 10}, {Day: "2026-03-14", Rows: 7, Bytes: 28 << 10}},
		Files: []logs.File{
			{Path: "/var/log/vpnd/auth.log", Offset: 900, Size: 900},
			{Path: "/var/log/vpnd/gateway.log", Offset: 900, Size: 1000, LagMs: 40},
			{Path: "/var/log/vpnd/pipe.log", Skipped: "is a named pipe"},
		},
	}
}

func savedLogs() []logs.Saved {
	return []logs.Saved{
		{Name: "refused", Query: `service=auth level>=warn "sign-in refused"`, CreatedAt: ago(72 * time.Hour), UpdatedAt: ago(72 * time.Hour), Runs: 12, LastRun: ptr(ago(time.Hour))},
		{Name: "slow", Query: "dur_ms>200", CreatedAt: ago(time.Hour), UpdatedAt: ago(time.Hour)},
	}
}

func (w *World) handleLogs(s *rpc.Server) {
	if w.LogService != nil {
		forwardLogs(s, w.LogService)
		return
	}
	on(w, s, logs.Query, w.queryLogs)
	on(w, s, logs.Count, func(r *logs.Ask) (*logs.Number, error) {
		found, err := w.findLogs(r.Query)
		return &logs.Number{Count: int64(len(found))}, err
	})
	on(w, s, logs.Stats, func(r *logs.StatsRequest) (*rpc.List[logs.Group], error) { return w.groupLogs(r.Query, r.By, r.Limit) })
	on(w, s, logs.Top, func(r *logs.TopRequest) (*rpc.List[logs.Group], error) {
		return w.groupLogs(r.Query, []string{r.Field}, r.Limit)
	})
	on(w, s, logs.Histogram, w.histogram)
	on(w, s, logs.Fields, func(r *logs.Ask) (*rpc.List[logs.Field], error) {
		found, err := w.findLogs(r.Query)
		out := &rpc.List[logs.Field]{}
		for _, name := range logFieldNames(found) {
			f := logs.Field{Name: name}
			for _, v := range found {
				if logValue(v, name) != "" {
					f.Count++
				}
			}
			out.Items, out.Total = append(out.Items, f), out.Total+1
		}
		return out, err
	})
	on(w, s, logs.Services, func(r *logs.Ask) (*rpc.List[logs.ServiceLines], error) {
		groups, err := w.groupLogs(r.Query, []string{"service"}, 1000)
		if err != nil {
			return nil, err
		}
		out := &rpc.List[logs.ServiceLines]{Total: groups.Total}
		for _, g := range groups.Items {
			v := logs.ServiceLines{Name: g.Values[0], Count: g.Count, Last: g.Last}
			for _, line := range w.Logs {
				if line.Service == v.Name && (line.Level == "error" || line.Level == "fatal") {
					v.Errors++
				}
			}
			out.Items = append(out.Items, v)
		}
		return out, nil
	})
	on(w, s, logs.GetStatus, func(*struct{}) (*logs.Status, error) { return &w.LogStatus, nil })
	on(w, s, logs.Purge, w.purgeLogs)
	w.handleSavedLogs(s)
	rpc.HandleStream(s, logs.Follow, w.followLogs)
	rpc.HandleStream(s, logs.Export, func(_ context.Context, r *logs.Ask, send func(logs.Record) error) error {
		w.mu.Lock()
		found, err := w.findLogs(r.Query)
		short := w.ExportShort
		w.mu.Unlock()
		if err != nil {
			return err
		}
		if short {
			found = found[:len(found)/2]
		}
		for _, v := range found {
			if err := send(v); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *World) handleSavedLogs(s *rpc.Server) {
	find := func(name string) (int, error) {
		i := slices.IndexFunc(w.SavedLogs, func(v logs.Saved) bool { return v.Name == name })
		if i < 0 {
			return 0, fault.New(fault.NotFound, "there is no saved query %q", name).WithHint("vpnctl logs saved list")
		}
		return i, nil
	}
	on(w, s, logs.ListSaved, func(*struct{}) (*rpc.List[logs.Saved], error) { return all(w.SavedLogs), nil })
	on(w, s, logs.Save, func(r *logs.SaveRequest) (*logs.Saved, error) {
		if _, err := w.findLogs(r.Body.Query); err != nil {
			return nil, err
		}
		i, err := find(r.Name)
		if err != nil {
			i = len(w.SavedLogs)
			w.SavedLogs = append(w.SavedLogs, logs.Saved{Name: r.Name, CreatedAt: Now()})
		}
		v := &w.SavedLogs[i]
		v.Query, v.UpdatedAt = r.Body.Query, Now()
		return v, nil
	})
	on(w, s, logs.RunSaved, func(r *logs.SavedRef) (*logs.Saved, error) {
		i, err := find(r.Name)
		if err != nil {
			return nil, err
		}
		v := &w.SavedLogs[i]
		v.Runs, v.LastRun = v.Runs+1, ptr(Now())
		return v, nil
	})
	on(w, s, logs.DeleteSaved, func(r *logs.SavedRef) (*rpc.None, error) {
		i, err := find(r.Name)
		if err == nil {
			w.SavedLogs = slices.Delete(w.SavedLogs, i, i+1)
		}
		return &rpc.None{}, err
	})
}

func (w *World) queryLogs(r *logs.QueryRequest) (*rpc.List[logs.Record], error) {
	found, err := w.findLogs(r.Query)
	if err != nil {
		return nil, err
	}
	if r.Order == "newest" {
		slices.Reverse(found)
	}
	at, _ := strconv.Atoi(r.After)
	end := min(at+r.Limit, len(found))
	out := &rpc.List[logs.Record]{Items: found[min(at, end):end], Total: end - at}
	if end < len(found) {
		out.Next = strconv.Itoa(end)
	}
	return out, nil
}

func (w *World) groupLogs(query string, by []string, limit int) (*rpc.List[logs.Group], error) {
	found, err := w.findLogs(query)
	if err != nil {
		return nil, err
	}
	var groups []logs.Group
	for _, v := range found {
		values := make([]string, len(by))
		for i, f := range by {
			values[i] = logValue(v, f)
		}
		i := slices.IndexFunc(groups, func(g logs.Group) bool { return slices.Equal(g.Values, values) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, logs.Group{Values: values, First: v.Time})
		}
		groups[i].Count, groups[i].Last = groups[i].Count+1, v.Time
	}
	slices.SortStableFunc(groups, func(a, b logs.Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), slices.Compare(a.Values, b.Values))
	})
	return page(groups, limit, func(logs.Group) bool { return true }), nil
}

func (w *World) histogram(r *logs.HistogramRequest) (*rpc.List[logs.Bucket], error) {
	found, err := w.findLogs(r.Query)
	if err != nil || len(found) == 0 {
		return &rpc.List[logs.Bucket]{}, err
	}
	size := time.Duration(r.Bucket) * time.Second
	out := &rpc.List[logs.Bucket]{}
	for t := found[0].Time.Truncate(size); !t.After(found[len(found)-1].Time); t = t.Add(size) {
		b := logs.Bucket{Start: t}
		for _, v := range found {
			if !v.Time.Truncate(size).Equal(t) {
				continue
			}
			if b.Count++; r.By != "" {
				if b.By == nil {
					b.By = map[string]int64{}
				}
				b.By[logValue(v, r.By)]++
			}
		}
		out.Items, out.Total = append(out.Items, b), out.Total+1
	}
	return out, nil
}

func (w *World) purgeLogs(r *logs.PurgeRequest) (*logs.Purged, error) {
	if strings.TrimSpace(r.Body.Query) == "" {
		return nil, fault.InvalidField("body.query", "says nothing; nothing never means everything")
	}
	found, err := w.findLogs(r.Body.Query)
	if err != nil {
		return nil, err
	}
	out := &logs.Purged{DryRun: r.Body.DryRun, Rows: int64(len(found))}
	for _, v := range found {
		day := v.Time.Format(time.DateOnly)
		if n := len(out.Days); n == 0 || out.Days[n-1].Day != day {
			out.Days = append(out.Days, struct {
				Day  string `json:"day" doc:"YYYY-MM-DD"`
				Rows int64  `json:"rows"`
			}{Day: day})
		}
		out.Days[len(out.Days)-1].Rows++
	}
	if !r.Body.DryRun {
		w.Logs = slices.DeleteFunc(w.Logs, func(v logs.Record) bool {
			return slices.ContainsFunc(found, func(f logs.Record) bool { return f.ID == v.ID })
		})
	}
	return out, nil
}

// followLogs sends what comes after a line, or what is new. Lines here are
// never removed while somebody follows.
func (w *World) followLogs(ctx context.Context, r *logs.FollowRequest, send func(logs.Record) error) error {
	w.mu.Lock()
	at := len(w.Logs)
	known := strings.Split(r.Since, ",")
	for i := len(w.Logs) - 1; i >= 0; i-- {
		if slices.Contains(known, w.Logs[i].ID) {
			at = i + 1
			break
		}
	}
	mark := logs.Record{Mark: true, ID: "0.0"}
	if at > 0 {
		mark.ID, mark.Time = w.Logs[at-1].ID, w.Logs[at-1].Time
	}
	w.mu.Unlock()
	if r.Marks {
		if err := send(mark); err != nil {
			return err
		}
	}
	for {
		w.mu.Lock()
		match, err := logMatcher(r.Query)
		batch, changed := slices.Clone(w.Logs[at:]), w.changed
		at = len(w.Logs)
		w.mu.Unlock()
		if err != nil {
			return err
		}
		for _, v := range batch {
			if match(v) {
				if err := send(v); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func logFieldNames(found []logs.Record) []string {
	var names []string
	for _, n := range []string{"level", "service", "event", "message", "user", "device", "session", "request_id", "file"} {
		if slices.ContainsFunc(found, func(v logs.Record) bool { return logValue(v, n) != "" }) {
			names = append(names, n)
		}
	}
	for _, v := range found {
		for _, f := range view.MoreLogFields(v.Fields) {
			if !slices.Contains(names, f.Key) {
				names = append(names, f.Key)
			}
		}
	}
	return names
}
