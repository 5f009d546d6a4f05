//go:build linux

package control_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/events"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/users"
)

func idOf(n int) id.Event { return id.Event(fmt.Sprintf("evt_%06d", n)) }

var errEnough = errors.New("enough")

// collect reads n matching events.
func collect(t *testing.T, w *world, req *api.EventsRequest, n int, each func(events.Event)) []events.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []events.Event
	err := api.Events.Follow(ctx, w.conn(), req, func(e events.Event) error {
		got = append(got, e)
		if each != nil {
			each(e)
		}
		if len(got) == n {
			return errEnough
		}
		return nil
	})
	if n > 0 && !errors.Is(err, errEnough) {
		t.Fatalf("after %d of %d events: %v", len(got), n, err)
	}
	return got
}

func TestEventsOfAllServicesComeTogether(t *testing.T) {
	w := newWorld(t)
	w.feed("users").publish(event(1, "user.suspended", "alice"))
	w.feed("sessions").publish(event(2, "session.opened", "bob"))
	eventually(t, "both events", func() bool { return len(collect(t, w, &api.EventsRequest{}, 0, nil)) == 2 })

	if got := collect(t, w, &api.EventsRequest{Type: "session"}, 0, nil); len(got) != 1 || got[0].Type != "session.opened" {
		t.Errorf("by type: %+v", got)
	}
	if got := collect(t, w, &api.EventsRequest{Type: "sess"}, 0, nil); len(got) != 0 {
		t.Errorf("by half a type: %+v", got)
	}
	if got := collect(t, w, &api.EventsRequest{User: "alice"}, 0, nil); len(got) != 1 || got[0].User != "alice" {
		t.Errorf("by user: %+v", got)
	}
	if _, err := users.Suspend.Call(t.Context(), w.conn(), &users.Ref{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	got := collect(t, w, &api.EventsRequest{Type: "control.changed"}, 0, nil)
	if len(got) != 1 || got[0].Data["op"] != "user.suspend" || got[0].Data["target"] != "alice" || got[0].Reason != "ok" {
		t.Errorf("own event: %+v", got)
	}
}

func TestFeedIsResumedWhereItBroke(t *testing.T) {
	w := newWorld(t)
	f := w.feed("users")
	f.publish(event(1, "user.created", "a"))
	eventually(t, "the first event", func() bool { return len(collect(t, w, &api.EventsRequest{}, 0, nil)) == 1 })
	f.interrupt()
	f.publish(event(2, "user.created", "b"), event(3, "user.created", "c"))
	eventually(t, "the events after the break", func() bool { return len(collect(t, w, &api.EventsRequest{}, 0, nil)) == 3 })

	// A new control gets what the services remember, once.
	w.kill(syscall.SIGKILL)
	w.start()
	eventually(t, "everything again", func() bool { return len(collect(t, w, &api.EventsRequest{}, 0, nil)) == 3 })
}

func TestFollowerSeesOnlyWhatIsNew(t *testing.T) {
	w := newWorld(t)
	f := w.feed("users")
	f.publish(event(1, "user.created", "old"))
	eventually(t, "the old event", func() bool { return len(collect(t, w, &api.EventsRequest{}, 0, nil)) == 1 })
	go func() {
		for i := 2; t.Context().Err() == nil; i++ {
			f.publish(event(i, "user.created", "new"))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if got := collect(t, w, &api.EventsRequest{Follow: true}, 1, nil); got[0].User != "new" {
		t.Errorf("got %+v", got)
	}
}
