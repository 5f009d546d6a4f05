package tor

import (
	"context"
	"net/netip"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/service"
)

// siblings are the questions to other services.
type siblings struct {
	setTor   func(context.Context, *lanes.TorAsk) (*lanes.TorAnswer, error)
	owner    func(context.Context, netip.Addr) (*sessions.Owner, error)
	user     func(ctx context.Context, ref string) (*users.User, error)
	session  func(ctx context.Context, ref string) (*sessions.Session, error)
	sessions func(ctx context.Context, user string) ([]sessions.Session, error)
}

func siblingsOf(env *service.Env) siblings {
	l, se, us := env.Sibling("lanes"), env.Sibling("sessions"), env.Sibling("users")
	return siblings{
		setTor: func(ctx context.Context, a *lanes.TorAsk) (*lanes.TorAnswer, error) {
			return lanes.SetTor.Call(ctx, l, a)
		},
		owner: func(ctx context.Context, a netip.Addr) (*sessions.Owner, error) {
			return sessions.GetOwner.Call(ctx, se, &sessions.OwnerRequest{Address: a})
		},
		user: func(ctx context.Context, ref string) (*users.User, error) {
			return users.Get.Call(ctx, us, &users.Ref{User: ref})
		},
		session: func(ctx context.Context, ref string) (*sessions.Session, error) {
			return sessions.Get.Call(ctx, se, &sessions.Ref{Session: ref})
		},
		sessions: func(ctx context.Context, user string) ([]sessions.Session, error) {
			l, err := sessions.List.Call(ctx, se, &sessions.ListRequest{User: user, Limit: 10000})
			if err != nil {
				return nil, err
			}
			return l.Items, nil
		},
	}
}
