package logs

import (
	"encoding/json"
	"strconv"

	api "vpnd/pkg/api/logs"
	"vpnd/pkg/logline"
	"vpnd/pkg/logstore"
)

// record is a line as it travels.
func record(f *logstore.Found) api.Record {
	r := &f.Record
	return api.Record{
		ID: f.ID.String(), Time: r.Time, Level: r.Level.String(), Service: r.Service, Event: r.Event, Message: r.Message,
		User: r.User, Device: r.Device, Session: r.Session, RequestID: r.RequestID, Fields: fields(r.Fields), File: r.File, Cut: r.Cut,
	}
}

// fields is an object of the keys in their order. Of two that are the same the
// second gets a number, since readers of JSON disagree on which counts.
func fields(list []logline.Field) json.RawMessage {
	if len(list) == 0 {
		return nil
	}
	used := make(map[string]bool, len(list))
	for i := range list {
		used[list[i].Key] = true
	}
	seen := make(map[string]bool, len(list))
	last := map[string]int{}
	out := []byte{'{'}
	for i := range list {
		key := list[i].Key
		for n := max(last[list[i].Key], 1) + 1; seen[key]; n++ {
			if c := list[i].Key + "~" + strconv.Itoa(n); !used[c] {
				key, used[c], last[list[i].Key] = c, true, n
			}
		}
		seen[key] = true
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, text(key)...)
		out = append(out, ':')
		out = append(out, value(list[i])...)
	}
	return append(out, '}')
}

// value is written back as it was, when it still is what its kind says.
func value(f logline.Field) []byte {
	if f.Kind != logline.String && json.Valid([]byte(f.Value)) {
		return []byte(f.Value)
	}
	return text(f.Value)
}

func text(s string) []byte {
	b, _ := json.Marshal(s) // a string always encodes
	return b
}
