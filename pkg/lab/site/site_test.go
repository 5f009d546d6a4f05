//go:build linux

package site_test

import (
	"context"
	"slices"
	"testing"

	"vpnd/pkg/config"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/lab/tornet"
)

// vpnd takes the configuration of a lab with a Tor network as it is.
func TestTorConfigIsValid(t *testing.T) {
	l, err := lab.New(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	n := &tornet.Network{}
	c, err := config.Parse([]byte((&site.Site{Lab: l}).Config() + site.TorConfig(n)))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Tor.ExtraTorrc, n.TorrcLines()) {
		t.Errorf("got %q, want %q", c.Tor.ExtraTorrc, n.TorrcLines())
	}
	if want := "http://" + lab.TargetV4.String() + "/ip"; c.Tor.CheckURL != want {
		t.Errorf("check_url: got %q, want %q", c.Tor.CheckURL, want)
	}
}
