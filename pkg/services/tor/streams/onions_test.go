package streams_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// An attack: tor gives an onion name one address for all, so a device that
// tries addresses would learn which onion services others use, and use them.
func TestADeviceUsesOnlyOnionAddressesThatItAskedFor(t *testing.T) {
	within(t, func(w *world) {
		w.want(w.exit(alice, "secret.onion:0"), "T")
		w.tor.virtual = map[string]string{"10.192.0.7": "secret.onion"}
		w.want(w.exit(alice, "10.192.0.7:80"), "T")
		w.want(w.exit(bob, "10.192.0.7:80"), "-")
		w.want(w.exit(bob, "10.192.0.8:80"), "-") // stands for nothing: refused alike
		w.want(w.exit(alice, "10.192.0.8:80"), "-")
		asked := w.tor.count("mappings")
		for i := range 100 {
			w.want(w.exit(bob, fmt.Sprintf("10.192.1.%d:80", i)), "-")
		}
		if n := w.tor.count("mappings") - asked; n > 0 {
			t.Errorf("100 tries made tor list its addresses %d times", n)
		}

		go w.stop() // killed
		synctest.Wait()
		w.start()
		w.want(w.exit(alice, "10.192.0.7:80"), "T")
		w.want(w.exit(bob, "10.192.0.7:80"), "-")
		w.want(w.exit(bob, "SECRET.onion.:0"), "T")
		w.want(w.exit(bob, "10.192.0.7:80"), "T")
	})
}

// An attack: tor's files are for all devices, and one could open them all.
func TestADeviceHasNoMoreThanItsShareOfStreams(t *testing.T) {
	within(t, func(w *world) {
		const share = 1024
		var first string
		for i := range share {
			id := w.tor.open(fmt.Sprintf("%s:%d", alice, 1000+i), "192.0.2.1:80")
			if first == "" {
				first = id
			}
		}
		w.settle(time.Second)
		w.want(w.exit(alice, "192.0.2.1:80"), "-")
		w.want(w.exit(bob, "192.0.2.1:80"), "T")
		w.tor.drop(first)
		w.settle(time.Second)
		w.want(w.exit(alice, "192.0.2.1:80"), "T")
	})
}
