//go:build linux

package link_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"vpnd/pkg/lab/netns"
	"vpnd/pkg/link"
)

func TestWatchRulesTellsOfEveryChange(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	var links *link.Links
	if err := ns.Do(func() (err error) { links, err = link.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)

	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		ended <- ns.Do(func() error { return link.WatchRules(ctx, func() { told <- struct{}{} }) })
	}()
	await := func(what string, times int) {
		t.Helper()
		for range times {
			select {
			case <-told:
			case err := <-ended:
				t.Fatalf("%s: %v", what, err)
			case <-time.After(10 * time.Second):
				t.Fatalf("not told of %s", what)
			}
		}
	}
	await("the beginning", 1)
	if err := links.Prohibit("wg1"); err != nil {
		t.Fatal(err)
	}
	await("two rules", 2)
	if err := links.Unprohibit("wg1"); err != nil {
		t.Fatal(err)
	}
	await("their end", 2)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
