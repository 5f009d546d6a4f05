package client

import (
	"testing"

	"vpnd/pkg/api/client"
)

func TestLanesInWords(t *testing.T) {
	for _, tc := range []struct {
		state           *client.LaneState
		lane, why, exit string
	}{
		{nil, "", "", ""},
		{&client.LaneState{State: "up"}, ", up", "", ""},
		{&client.LaneState{State: "up", ExitCountry: "de"}, ", up", "", "de"},
		{&client.LaneState{State: "up", Exits: []string{"de", "nl"}}, ", up", "", "none yet (chosen: de, nl)"},
		{&client.LaneState{State: "up", Exits: []string{"de"}, Strict: true, ExitCountry: "de"}, ", up", "", "de (chosen: de; nothing else will do)"},
		{&client.LaneState{State: "blocked", Reason: "nobody asks"}, ", blocked", "nobody asks", ""},
		{&client.LaneState{State: "unknown", Reason: "no answer"}, ", state unknown", "no answer", ""},
		{&client.LaneState{State: "maintenance", Reason: "back at noon", Exits: []string{"de"}, ExitCountry: "de"}, ", maintenance", "back at noon", ""},
	} {
		lane, why := describeLane(tc.state)
		if exit := describeExit(tc.state); lane != tc.lane || why != tc.why || exit != tc.exit {
			t.Errorf("%+v is %q, %q and %q, want %q, %q and %q", tc.state, lane, why, exit, tc.lane, tc.why, tc.exit)
		}
	}
}
