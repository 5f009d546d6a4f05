package torctl_test

import (
	"errors"
	"strings"
	"testing"

	"vpnd/pkg/fault"
)

// A reply that is read line by line must be whole and the one that was asked for.
func TestBadStreamsBreakTheClient(t *testing.T) {
	for name, reply := range map[string]string{
		"hangup": "hangup", "silence": "", "no end": "250+entry-guards=\r\n$" + fp + " up\r\n.\r\n", "stump": "250+entry-guards=\r\n$" + fp + " up\r\nhangup",
		"stump of an end": "250-entry-guards=\r\n250 Ohangup", "other key": "250-ns/all=\r\n250 OK\r\n", "other end": "250-entry-guards=\r\n551 x\r\n",
		"no value": "250 OK\r\n", "no code": "x\r\n", "an event": "650 NOTICE x\r\n", "long line": "250+entry-guards=\r\n" + strings.Repeat("a", 2<<20) + "\r\n.\r\n250 OK\r\n",
		"huge": "250+entry-guards=\r\n" + strings.Repeat(strings.Repeat("a", 1<<10)+"\r\n", 65<<10) + ".\r\n250 OK\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, newFake(t, false, func(string) string { return reply }))
			ctx := t.Context()
			if name != "huge" {
				ctx = soon(t)
			}
			if v, err := c.EntryGuards(ctx); err == nil {
				t.Fatalf("got %v", v)
			}
			<-c.Done()
		})
	}
}

func TestARefusedStreamBreaksNothing(t *testing.T) {
	n := &network{extra: map[string]string{"GETINFO entry-guards": "552 Unrecognized key \"entry-guards\"\r\n"}}
	c := dial(t, newFake(t, false, n.answer))
	if _, err := c.EntryGuards(t.Context()); !errors.Is(err, fault.NotFound) || c.Err() != nil {
		t.Error(err, c.Err())
	}
	if r, err := c.Relays(t.Context()); err != nil || r != nil {
		t.Error(r, err)
	}
	n.extra["GETINFO entry-guards"] = "250-entry-guards=nonsense\r\n250 OK\r\n"
	if _, err := c.EntryGuards(t.Context()); !errors.Is(err, fault.Unavailable) || c.Err() != nil {
		t.Error(err, c.Err())
	}
}
