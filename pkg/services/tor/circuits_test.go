package tor

import (
	"errors"
	"net/netip"
	"testing"

	"vpnd/pkg/api/sessions"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
)

func (w *world) newID(user, device string, all bool) (*api.NewIDReply, error) {
	r := &api.NewIDRequest{}
	r.Body.User, r.Body.Device, r.Body.All = user, device, all
	return w.s.newID(w.t.Context(), r)
}

func TestNewIdentityIsForExactlyOneOfThree(t *testing.T) {
	w := still(t)
	w.connect("alice", "laptop", "10.9.0.2")
	w.open[0].State = sessions.Closed
	for name, c := range map[string]struct {
		user, device string
		all          bool
		want         fault.Code
	}{
		"none":             {want: fault.Invalid},
		"user and device":  {user: "alice", device: "alice/laptop", want: fault.Invalid},
		"device and all":   {device: "alice/laptop", all: true, want: fault.Invalid},
		"all three":        {user: "alice", device: "alice/laptop", all: true, want: fault.Invalid},
		"a stranger":       {user: "carol", want: fault.NotFound},
		"no such device":   {device: "alice/phone", want: fault.NotFound},
		"a closed session": {device: "alice/laptop", want: fault.NotFound},
		"no tor":           {all: true, want: fault.Unavailable},
	} {
		if _, err := w.newID(c.user, c.device, c.all); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.session = fault.New(fault.Unavailable, "sessions is away")
	if _, err := w.newID("alice", "", false); !errors.Is(err, fault.Unavailable) {
		t.Errorf("without sessions: %v", err)
	}
}

func TestNewIdentityTakesTheCircuitsOfTheDevicesNamed(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.connect("alice", "laptop", "10.9.0.2")
	w.connect("alice", "phone", "10.9.0.3")
	w.connect("bob", "pc", "10.9.0.4")
	w.up()
	o := well()
	o.Say = []string{
		"STREAM 71 NEW 0 192.0.2.1:80 SOURCE_ADDR=10.9.0.2:4000 PURPOSE=USER",
		"STREAM 72 NEW 0 192.0.2.1:80 SOURCE_ADDR=10.9.0.3:4000 PURPOSE=USER",
		"STREAM 73 NEW 0 192.0.2.1:80 SOURCE_ADDR=10.9.0.4:4000 PURPOSE=USER",
	}
	w.order(o)
	carried := func() map[string]string { // circuit by device
		out := map[string]string{}
		all, err := w.s.listCircuits(t.Context())
		if err != nil {
			return nil
		}
		for _, c := range all {
			for _, d := range c.Devices {
				out[d.User+"/"+d.Device] = c.ID
			}
		}
		return out
	}
	w.until("three circuits in use", func(*api.Status) bool { return len(carried()) == 3 })
	opened, err := w.s.listStreams(t.Context())
	if err != nil || len(opened) != 3 || opened[0].Owner != (api.Owner{User: "alice", Device: "laptop", Address: netip.MustParseAddr("10.9.0.2")}) {
		t.Errorf("streams %+v, %v", opened, err)
	}
	one, err := w.s.getCircuit(t.Context(), carried()["bob/pc"])
	if err != nil || one.State != "BUILT" || len(one.Path) != 3 || one.Path[0].Fingerprint != relayFP(0) || one.Streams != 1 || one.Ours || one.Created.IsZero() {
		t.Errorf("a circuit %+v, %v", one, err)
	}
	if _, err := w.s.getCircuit(t.Context(), "999"); !errors.Is(err, fault.NotFound) {
		t.Errorf("no circuit: %v", err)
	}
	for _, c := range []struct {
		user, device  string
		all           bool
		devices, left int
	}{{"", "alice/phone", false, 1, 2}, {"alice", "", false, 2, 1}, {"", "", true, 3, 0}} {
		reply, err := w.newID(c.user, c.device, c.all)
		if err != nil || reply.Devices != c.devices || reply.Circuits != 1 || reply.Streams != 1 {
			t.Errorf("%+v: %+v, %v", c, reply, err)
		}
		if left := carried(); len(left) != c.left || c.left == 2 && left["alice/phone"] != "" || c.left == 1 && left["bob/pc"] == "" {
			t.Errorf("%+v leaves %v", c, left)
		}
	}
	if err := w.s.closeCircuit(t.Context(), "999"); !errors.Is(err, fault.NotFound) || err.Error() != "there is no circuit 999" {
		t.Errorf("close no circuit: %v", err)
	}
	names, err := w.s.listOnions(t.Context())
	if err != nil || len(names) != 1 || names[0] != (api.Onion{Name: "abc.onion", Virtual: netip.MustParseAddr("10.192.0.7")}) {
		t.Errorf("onion names %v, %v", names, err)
	}
}

func TestADeviceSeesStateChoiceAndCountryOfItsUser(t *testing.T) {
	t.Parallel()
	w := begun(t)
	w.connect("alice", "laptop", "10.9.0.2")
	o := well()
	o.Exits = []string{"de", "nl"}
	w.order(o)
	if _, err := w.exit("alice", true, "nl"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.exit(everybody, false, "de"); err != nil {
		t.Fatal(err)
	}
	w.up()
	o.Say = []string{"STREAM 71 NEW 0 192.0.2.1:80 SOURCE_ADDR=10.9.0.2:4000 PURPOSE=USER"}
	w.order(o)
	w.until("alice leaves in nl", func(*api.Status) bool { return w.s.view(t.Context(), "u1").Country == "nl" })
	if v := w.s.view(t.Context(), "u1"); v.State != "up" || v.Reason != "" || !v.Strict || len(v.Exits) != 1 || v.Exits[0] != "nl" {
		t.Errorf("alice sees %+v", v)
	}
	if v := w.s.view(t.Context(), "u2"); v.State != "up" || v.Strict || v.Exits[0] != "de" || v.Country != "" {
		t.Errorf("bob sees %+v", v)
	}
	w.wish(api.WishMaintenance, "back at noon")
	if v := w.s.view(t.Context(), "u2"); v.State != "maintenance" || v.Reason != "back at noon" {
		t.Errorf("bob sees %+v", v)
	}
}
