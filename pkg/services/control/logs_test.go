//go:build linux

package control_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	api "vpnd/pkg/api/control"
	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

func TestStreamsOfLogsPassThrough(t *testing.T) {
	w := newWorld(t)
	var got []string
	err := logs.Export.Follow(t.Context(), w.conn(), &logs.Ask{Query: "user=alice"}, func(r logs.Record) error {
		got = append(got, r.ID+r.Message)
		return nil
	})
	if len(got) != 2 || got[0] != "1user=alice" || got[1] != "2" || !errors.Is(err, fault.Unavailable) {
		t.Errorf("export gave %q, %v", got, err)
	}
	if !errors.Is(err, rpc.ErrEnded) {
		t.Errorf("a whole export ends with %v", err)
	}
	err = logs.Export.Follow(t.Context(), w.conn(), &logs.Ask{Query: "abort"}, func(logs.Record) error { return nil })
	if f := fault.From(err); !errors.Is(err, fault.Unavailable) || !strings.Contains(f.Message, "broke") {
		t.Errorf("an export that breaks ends with %v", err)
	}
	err = logs.Export.Follow(t.Context(), w.conn(), &logs.Ask{Query: "("}, func(logs.Record) error { return nil })
	if f := fault.From(err); !errors.Is(err, fault.Invalid) || len(f.Fields) != 1 {
		t.Errorf("a mistake in the query: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = logs.Follow.Follow(ctx, w.conn(), &logs.FollowRequest{Since: "x.1"}, func(r logs.Record) error {
		if r.ID != "x.1" || r.Missed != 3 {
			t.Errorf("got %+v", r)
		}
		cancel()
		return nil
	})
	if err != nil {
		t.Errorf("follow ended with %v", err)
	}
	eventually(t, "the end of the follower behind control", func() bool {
		w.fake.mu.Lock()
		defer w.fake.mu.Unlock()
		return w.fake.left == 1
	})
}

func TestAPurgeIsWrittenDownAndADryRunIsNot(t *testing.T) {
	w := newWorld(t)
	req := &logs.PurgeRequest{}
	req.Body.Query, req.Body.DryRun = "user=alice", true
	if got, err := logs.Purge.Call(t.Context(), w.conn(), req); err != nil || !got.DryRun || got.Rows != 7 {
		t.Fatalf("dry run: %+v, %v", got, err)
	}
	trail := func() []api.AuditEntry {
		t.Helper()
		l, err := api.Audit.Call(t.Context(), w.conn(), &api.AuditRequest{Op: logs.Purge.ID})
		if err != nil {
			t.Fatal(err)
		}
		return l.Items
	}
	if got := trail(); len(got) != 0 {
		t.Errorf("after a dry run the trail has %+v", got)
	}
	req.Body.DryRun = false
	if _, err := logs.Purge.Call(t.Context(), w.conn(), req); err != nil {
		t.Fatal(err)
	}
	if got := trail(); len(got) != 1 || got[0].Target != "user=alice" || got[0].Result != "ok" {
		t.Errorf("after a purge the trail has %+v", got)
	}
	r := w.callAs(account{uid: 12345, gid: viewGID}, `POST /v1/logs-purge {"query":"user=alice","dry_run":true}`, "GET /v1/logs")
	if r[0].Status != 403 || r[1].Status != 200 {
		t.Errorf("who may look got %+v", r)
	}
}
