package tor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vpnd/pkg/api/events"
	api "vpnd/pkg/api/tor"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/torpath"
)

// fewExits is below which a choice is worth a warning: with few exits, fewer
// people look alike.
const fewExits = 10

// everybody stands for the global choice where an operation names a user.
const everybody = "-"

// who gives id and name of a user; both empty for everybody.
func (s *Service) who(ctx context.Context, ref string) (id, name string, err error) {
	if ref == everybody {
		return "", "", nil
	}
	if strings.Contains(ref, "/") {
		return "", "", fault.InvalidField("user", "%q is neither a username nor an id", ref)
	}
	u, err := s.siblings.user(ctx, ref)
	if err != nil {
		return "", "", err
	}
	return string(u.ID), u.Username, nil
}

func (s *Service) setExit(ctx context.Context, r *api.ExitRequest) (*api.ExitReply, error) {
	id, name, err := s.who(ctx, r.User)
	if err != nil {
		return nil, err
	}
	parsed, err := torpath.ParseExits(r.Body.Exits)
	if err != nil {
		return nil, err
	}
	c := choice{User: name, Exits: wordsOf(parsed), Strict: r.Body.Strict, parsed: parsed}
	if err := s.setSettings(func(n *settings) error { n.Exits[id] = c; return nil }); err != nil {
		return nil, err
	}
	s.choicesChanged()
	s.exitChanged(ctx, name, describe(c))
	s.publish(events.Event{Type: "tor.exit_changed", User: name, Message: describe(c), Data: map[string]string{"exits": strings.Join(c.Exits, " ")}})
	reply := &api.ExitReply{Choice: s.choiceOf(c)}
	switch n := reply.Choice.Usable; {
	case !s.book.ready():
		reply.Warning = "tor knows no relays yet, so it is not known how many exits match"
	case n == 0 && c.Strict:
		reply.Warning = "no running exit matches: no connection will be made"
	case n == 0:
		reply.Warning = "no running exit matches: tor chooses until one does"
	case n < fewExits:
		reply.Warning = fmt.Sprintf("only %d running exits match: the fewer there are, the easier it is to tell who uses them", n)
		if n == 1 {
			reply.Warning = "only 1 running exit matches: whoever watches it knows whose traffic it is, and when it stops there is none"
		}
	}
	return reply, nil
}

func (s *Service) clearExit(ctx context.Context, ref string) error {
	id, name, err := s.who(ctx, ref)
	if errors.Is(err, fault.NotFound) { // an account that is gone may have left one
		for key, c := range s.settings.Load().Exits {
			if key != "" && (key == ref || c.User == ref) {
				id, name, err = key, c.User, nil
			}
		}
	}
	if err != nil {
		return err
	}
	if _, ok := s.settings.Load().Exits[id]; !ok {
		return nil
	}
	if err := s.setSettings(func(n *settings) error { delete(n.Exits, id); return nil }); err != nil {
		return err
	}
	s.choicesChanged()
	s.exitChanged(ctx, name, "")
	s.publish(events.Event{Type: "tor.exit_changed", User: name, Message: "tor chooses the exit again"})
	return nil
}

// exitChanged logs a choice; none for "". An empty name is everybody's.
func (s *Service) exitChanged(ctx context.Context, name, exits string) {
	about := []any{"exits", cmp.Or(exits, "tor chooses"), "request_id", rpc.RequestID(ctx)}
	if name != "" {
		about = append(about, "user", name)
	}
	s.log.InfoContext(ctx, "tor.exit_changed", about...)
}

// listExits gives the global choice first, then those of users by name.
func (s *Service) listExits() []api.Choice {
	var out []api.Choice
	for _, c := range s.settings.Load().Exits {
		out = append(out, s.choiceOf(c))
	}
	slices.SortFunc(out, func(x, y api.Choice) int { return cmp.Compare(x.User, y.User) })
	return out
}

func (s *Service) choiceOf(c choice) api.Choice {
	return api.Choice{User: c.User, Exits: c.Exits, Strict: c.Strict, Usable: s.book.relays().Usable(c.parsed)}
}

func (s *Service) choicesChanged() {
	if a := s.attached(); a != nil {
		a.ChoicesChanged()
	}
}

func describe(c choice) string {
	how := "preferred"
	if c.Strict {
		how = "strict"
	}
	return strings.Join(c.Exits, " ") + ", " + how
}

func wordsOf(e torpath.Exits) []string {
	out := slices.Clone(e.Countries)
	for _, fp := range e.Fingerprints {
		out = append(out, "$"+fp)
	}
	return out
}
