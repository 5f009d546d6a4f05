package client

import (
	"testing"

	"vpnd/pkg/api/client"
)

func TestLanesInWords(t *testing.T) {
	for _, tc := range []struct {
		state      *client.LaneState
		lane, exit string
	}{
		{nil, "", ""},
		{&client.LaneState{State: "up"}, ", up", ""},
		{&client.LaneState{State: "up", ExitCountry: "de"}, ", up", "de"},
		{&client.LaneState{State: "up", Exits: []string{"de", "nl"}}, ", up", "none yet (chosen: de, nl)"},
		{&client.LaneState{State: "up", Exits: []string{"de"}, Strict: true, ExitCountry: "de"}, ", up", "de (chosen: de; nothing else will do)"},
		{&client.LaneState{State: "blocked", Reason: "nobody asks"}, ", blocked: nobody asks", ""},
		{&client.LaneState{State: "unknown", Reason: "no answer"}, ", state unknown: no answer", ""},
	} {
		if lane, exit := describeLane(tc.state), describeExit(tc.state); lane != tc.lane || exit != tc.exit {
			t.Errorf("%+v is %q and %q, want %q and %q", tc.state, lane, exit, tc.lane, tc.exit)
		}
	}
}
