//go:build linux

package e2e_test

import (
	"testing"
	"time"

	"vpnd/pkg/lab"
)

// shortDNS is an attack: one datagram that ends within the header of DNS made
// tor's DNSPort crash, and so a device could take tor from all others.
func shortDNS(t *testing.T, w *torWorld) {
	before := w.torPID()
	for _, resolver := range []string{"198.51.100.53:53", "[2001:db8:53::53]:53"} {
		c, err := w.Machine(laptop).DialContext(t.Context(), "udp", resolver)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// A good question first: what follows belongs to a flow that is let through.
		if _, err := c.Write(question("target.test")); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 512)); err != nil {
			t.Fatalf("%s: %v", resolver, err)
		}
		for round := range 20 {
			for n := range 12 {
				text := []byte("let me out, please")[:n]
				if round%2 == 1 {
					text = question("target.test")[:n]
				}
				_, _ = c.Write(text) // refused: the next write may tell
			}
		}
	}
	if virtual, err := w.lookUp(laptop, "target.test"); err != nil || virtual != lab.TargetV4 {
		t.Errorf("a question afterwards: %s, %v", virtual, err)
	}
	w.seesExit()
	if now := w.torPID(); now != before {
		t.Errorf("tor was process %d and is %d: it crashed", before, now)
	}
}
