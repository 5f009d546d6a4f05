package tor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/torpath"
)

// know gives the book exits of these countries.
func (w *world) know(countries ...string) {
	var all []torpath.Relay
	for i, c := range countries {
		ports, _ := torpath.ParsePortPolicy("accept 80")
		all = append(all, torpath.Relay{Fingerprint: fmt.Sprintf("%040X", i), Country: c, Exit: true, Ports: ports, Flags: []string{"Exit", "Fast", "Running", "Valid"}})
	}
	w.s.book.take(torpath.New(all, false))
}

func (w *world) exit(user string, strict bool, exits ...string) (*api.ExitReply, error) {
	r := &api.ExitRequest{User: user}
	r.Body.Exits, r.Body.Strict = exits, strict
	return w.s.setExit(w.t.Context(), r)
}

func TestAnExitChoiceIsWarnedOfByHowManyMatch(t *testing.T) {
	w := still(t)
	if reply, err := w.exit("alice", true, "de"); err != nil || !strings.Contains(reply.Warning, "knows no relays yet") {
		t.Errorf("without relays: %+v, %v", reply, err)
	}
	w.know(slices.Concat(slices.Repeat([]string{"de"}, 10), slices.Repeat([]string{"nl"}, 9), []string{"se"})...)
	for _, c := range []struct {
		exits  []string
		strict bool
		usable int
		want   string
	}{
		{[]string{"fr"}, true, 0, "no connection will be made"},
		{[]string{"fr"}, false, 0, "tor chooses until one does"},
		{[]string{"SE"}, true, 1, "only 1 running exit matches"},
		{[]string{"$" + fmt.Sprintf("%040x", 12)}, true, 1, "only 1 running exit matches"},
		{[]string{"nl"}, true, 9, "only 9 running exits match"},
		{[]string{"de"}, true, 10, ""},
		{[]string{"nl", "{se}", "nl"}, false, 10, ""},
	} {
		reply, err := w.exit("alice", c.strict, c.exits...)
		if err != nil || reply.Choice.Usable != c.usable || (reply.Warning == "") != (c.want == "") || !strings.Contains(reply.Warning, c.want) {
			t.Errorf("%v, strict %t: %+v, %v", c.exits, c.strict, reply, err)
		}
	}
	for name, err := range map[string]error{
		"a word":         second(w.exit("alice", true, "Germany")),
		"nothing":        second(w.exit("alice", true)),
		"too many":       second(w.exit("alice", true, slices.Repeat([]string{"de"}, 51)...)),
		"a stranger":     second(w.exit("carol", true, "de")),
		"nobody's clear": w.s.clearExit(t.Context(), "carol"),
	} {
		if !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := w.s.listExits(); len(got) != 1 || !slices.Equal(got[0].Exits, []string{"nl", "se"}) {
		t.Errorf("what was refused changed something: %+v", got)
	}
}

func TestChoicesAreListedKeptAndCleared(t *testing.T) {
	w := still(t)
	w.know("de", "de", "nl")
	for _, c := range []struct {
		user, exit string
		strict     bool
	}{{"bob", "nl", false}, {"u1", "de", true}, {everybody, "nl", true}} {
		if _, err := w.exit(c.user, c.strict, c.exit); err != nil {
			t.Fatal(err)
		}
	}
	want := []api.Choice{{Exits: []string{"nl"}, Strict: true, Usable: 1}, {User: "alice", Exits: []string{"de"}, Strict: true, Usable: 2}, {User: "bob", Exits: []string{"nl"}, Usable: 1}}
	for range 2 {
		if diff := cmp.Diff(want, w.s.listExits()); diff != "" {
			t.Error(diff)
		}
		if st := w.s.Status(); st.Exits != 2 || st.Exit == nil || st.Exit.Usable != 1 {
			t.Errorf("the status has %+v and %d", st.Exit, st.Exits)
		}
		w.make() // after a restart
		w.know("de", "de", "nl")
	}
	if c, ok := w.s.settings.Load().choiceFor("u1"); !ok || !c.Strict || !slices.Equal(c.Exits.Countries, []string{"de"}) {
		t.Errorf("alice's strict choice became %+v", c)
	}
	delete(w.users, "alice") // her choice is found by the name that she had
	for _, user := range []string{everybody, "alice", "u2", "u2"} {
		if err := w.s.clearExit(t.Context(), user); err != nil {
			t.Errorf("clear %s: %v", user, err)
		}
	}
	if got := w.s.listExits(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	var changes int
	for _, e := range w.events {
		if e.Type == "tor.exit_changed" {
			changes++
		}
	}
	if changes != 6 {
		t.Errorf("%d changes were published, want 6: the last clear changed nothing", changes)
	}
}

func TestWithAChoiceTheLaneWaitsForRelays(t *testing.T) {
	t.Parallel()
	w := still(t)
	if _, err := w.exit("alice", true, "de"); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.maintenance("the relays for the exit choices are not known yet")
	o := well()
	o.Exits = []string{"de", "nl"}
	w.order(o)
	w.up()
	if got := w.s.listExits(); got[0].Usable != 1 {
		t.Errorf("the choice is %+v", got)
	}
	all := w.s.listRelays(&api.RelayRequest{Exit: true, Country: "NL", Limit: 5}).Items
	if len(all) != 1 || all[0].Country != "nl" || !all[0].Exit || all[0].Fingerprint != relayFP(3) {
		t.Errorf("relays %+v", all)
	}
	if all := w.s.listRelays(&api.RelayRequest{Limit: 3}); len(all.Items) != 3 || all.Total != len(w.s.book.relays().Relays()) || all.Total <= 3 {
		t.Errorf("%d relays of at most 3, of %d in total", len(all.Items), all.Total)
	}
}
