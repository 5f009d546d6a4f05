package tor

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/durable"
)

func TestWishSurvivesAndDefaultsToUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if w, err := loadWish(path); err != nil || w.Wish != api.WishUp || w.Process != processStart {
		t.Fatal(w, err)
	}
	want := wish{Wish: api.WishDown, Process: processStop, Message: "m"}
	if err := durable.WriteJSON(path, want); err != nil {
		t.Fatal(err)
	}
	if w, err := loadWish(path); err != nil || w != want {
		t.Fatal(w, err)
	}
}

func TestDecide(t *testing.T) {
	well := observation{process: api.ProcessRunning, gateways: true, relays: true, live: true, dir: true, circuit: true, boot: api.Bootstrap{Percent: 100}, probe: probeState{good: true}}
	hung := well
	hung.process = api.ProcessHung
	for _, c := range []struct {
		w    api.Wish
		o    observation
		want lanes.TorState
	}{{api.WishUp, well, lanes.TorUp}, {api.WishUp, hung, lanes.TorMaintenance}, {api.WishDown, well, lanes.TorBlocked}, {api.WishMaintenance, well, lanes.TorMaintenance}} {
		if d := decide(wish{Wish: c.w, Process: processStart}, c.o); d.state != c.want || (d.reason == "") != (d.state == lanes.TorUp) {
			t.Errorf("%s: %+v", c.w, d)
		}
	}
}

func TestPageEscapes(t *testing.T) {
	r := httptest.NewRecorder()
	page(func() string { return "<script>" }).ServeHTTP(r, httptest.NewRequest("POST", "/x", nil))
	if r.Code != 503 || strings.Contains(r.Body.String(), "<script>") || r.Header().Get("Retry-After") != "30" {
		t.Fatal(r)
	}
}
