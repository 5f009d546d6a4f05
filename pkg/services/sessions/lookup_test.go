package sessions_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

func TestListPagesAndFilters(t *testing.T) {
	inBubble(t, func(w *world) {
		var opened []id.Session // newest first
		for i := range 7 {
			dev := id.Device(fmt.Sprint("x", i))
			w.addUser(id.User(fmt.Sprint("u", i%2)), dev)
			s := w.openAs(id.User(fmt.Sprint("u", i%2)), dev, newKey())
			opened = append([]id.Session{s.SessionID}, opened...)
			if i%3 == 2 {
				time.Sleep(20 * time.Second) // others begin in the same instant
			}
		}
		sortable := func(ids []id.Session) []id.Session { c := slices.Clone(ids); slices.Sort(c); return c }
		page := func(r api.ListRequest) (got []id.Session, total int) {
			for pages := 0; ; pages++ {
				l, err := w.List(r)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range l.Items {
					got = append(got, s.ID)
				}
				if len(l.Items) > r.Limit || pages > 10 {
					t.Fatalf("page of %d", len(l.Items))
				}
				if l.Next == "" {
					return got, l.Total
				}
				r.After = l.Next
			}
		}
		for _, limit := range []int{1, 2, 3, 7, 100} {
			got, total := page(api.ListRequest{Limit: limit})
			if d := cmp.Diff(sortable(opened), sortable(got)); d != "" || total != 7 {
				t.Errorf("limit %d: total %d, %s", limit, total, d)
			}
			if got[0] != opened[0] {
				t.Error("not the newest first")
			}
		}
		for _, user := range []string{"u0", "name-u0"} {
			if got, total := page(api.ListRequest{Limit: 2, User: user}); len(got) != 4 || total != 4 {
				t.Errorf("%s: %v, %d", user, got, total)
			}
		}
		if got, _ := page(api.ListRequest{Limit: 2, User: "nobody"}); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		time.Sleep(75 * time.Second) // the oldest three are silent
		if got, _ := page(api.ListRequest{Limit: 2, State: "offline"}); len(got) != 6 {
			t.Errorf("offline: %v", got)
		}
		if got, _ := page(api.ListRequest{Limit: 2, State: "online"}); len(got) != 1 {
			t.Errorf("online: %v", got)
		}
		if _, err := w.List(api.ListRequest{Limit: 1, After: "garbage"}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestHistoryPagesAndFilters(t *testing.T) {
	inBubble(t, func(w *world) {
		w.cfg.History = 2 * time.Hour
		w.stop()
		w.start()
		start := time.Now()
		for i := range 9 {
			user, dev := id.User("alice"), id.Device("a1")
			if i%3 == 0 {
				user, dev = "bob", "b1"
			}
			w.openAs(user, dev, newKey())
			if i%2 == 0 {
				time.Sleep(time.Second)
			}
			if _, err := w.CloseDevice(w.t.Context(), dev, api.ByUser, false); err != nil {
				t.Fatal(err)
			}
		}
		page := func(r api.HistoryRequest) (got []api.Session, total int) {
			for range 20 {
				l, err := w.History(w.t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, l.Items...)
				if len(l.Items) > r.Limit || l.Items == nil {
					t.Fatalf("page of %d", len(l.Items))
				}
				if l.Next == "" {
					return got, l.Total
				}
				r.After = l.Next
			}
			t.Fatal("no end")
			return nil, 0
		}
		for _, limit := range []int{1, 2, 4, 9, 50} {
			got, total := page(api.HistoryRequest{Limit: limit})
			if len(got) != 9 || total != 9 {
				t.Errorf("limit %d: %d of %d", limit, len(got), total)
			}
			seen := map[id.Session]bool{}
			for i, s := range got {
				if seen[s.ID] || (i > 0 && s.ClosedAt.After(*got[i-1].ClosedAt)) {
					t.Errorf("limit %d: %s is there twice or out of order", limit, s.ID)
				}
				seen[s.ID] = true
			}
		}
		for r, want := range map[api.HistoryRequest]int{
			{User: "bob"}: 3, {User: "name-bob"}: 3, {Device: "a1"}: 6, {Device: "box-a1"}: 6, {User: "bob", Device: "a1"}: 0,
			{Since: start.Add(3 * time.Second)}: 5, {Since: start}: 9,
		} {
			r.Limit = 2
			if got, total := page(r); len(got) != want || total != want {
				t.Errorf("%+v: %d of %d, want %d", r, len(got), total, want)
			}
		}
		if _, err := w.History(w.t.Context(), api.HistoryRequest{Limit: 1, After: "1"}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
		time.Sleep(4 * time.Hour) // longer than remembered
		if got, _ := page(api.HistoryRequest{Limit: 5}); len(got) != 0 {
			t.Errorf("still remembered: %v", got)
		}
	})
}

func TestFind(t *testing.T) {
	inBubble(t, func(w *world) {
		a1 := w.openAs("alice", "a1", newKey())
		a2 := w.openAs("alice", "a2", newKey())
		b1 := w.openAs("bob", "b1", newKey())
		if _, err := w.CloseDevice(w.t.Context(), "a2", api.ByUser, false); err != nil {
			t.Fatal(err)
		}
		for ref, want := range map[string]id.Session{
			string(a1.SessionID): a1.SessionID, string(a1.SessionID[:12]): a1.SessionID, "name-alice/box-a1": a1.SessionID,
			"a1": a1.SessionID, "name-bob": b1.SessionID,
			string(a2.SessionID): a2.SessionID, string(a2.SessionID[:12]): a2.SessionID,
		} {
			if got, err := w.Find(w.t.Context(), ref); err != nil || got.ID != want {
				t.Errorf("%s: got %s, %v", ref, got.ID, err)
			}
		}
		for _, ref := range []string{"name-alice/box-a2", "nobody", "ses_", "ses_zzzzzzzzzz", "name-alice/", "/box-a1"} {
			if _, err := w.Find(w.t.Context(), ref); !errors.Is(err, fault.NotFound) || fault.From(err).Hint == "" {
				t.Errorf("%s: got %v", ref, err)
			}
		}
		again := w.openAs("alice", "a2", newKey())
		_, err := w.Find(w.t.Context(), "name-alice")
		wantFault(t, "two sessions", err, fault.Conflict, "ambiguous")
		if h := fault.From(err).Hint; !strings.Contains(h, string(a1.SessionID)) || !strings.Contains(h, string(again.SessionID)) {
			t.Errorf("hint %q", h)
		}
	})
}
