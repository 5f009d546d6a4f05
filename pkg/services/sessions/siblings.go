package sessions

import (
	"context"

	"vpnd/pkg/api/auth"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/ipam"
	"vpnd/pkg/api/lanes"
	"vpnd/pkg/api/tor"
	"vpnd/pkg/api/users"
	"vpnd/pkg/rpc"
)

// Siblings is what sessions asks of other services.
type Siblings interface {
	Account(ctx context.Context, user id.User) (*users.Account, error)
	Device(ctx context.Context, user id.User, device id.Device) (*auth.Device, error)
	AddUsage(ctx context.Context, seq int64, usage []users.Usage) error

	Acquire(ctx context.Context, device id.Device, user id.User) (*ipam.Lease, error)
	Release(ctx context.Context, device id.Device) error
	// Leases gives a user's leases, or everybody's for "".
	Leases(ctx context.Context, user id.User) ([]ipam.Lease, error)

	Lanes

	// TorView tells what a user's devices may know of lane tor.
	TorView(ctx context.Context, user id.User) (*tor.LaneView, error)
}

// Lanes is what sessions asks of the lanes service.
type Lanes interface {
	Put(ctx context.Context, p lanes.Peer) (epoch string, err error)
	Remove(ctx context.Context, peers ...lanes.Removal) (*lanes.Removed, error)
	Sync(ctx context.Context, peers []lanes.Peer) (*lanes.Synced, error)
	Stats(ctx context.Context) (*lanes.StatsReply, error)
	Epoch(ctx context.Context) (*lanes.EpochReply, error)
	Interfaces(ctx context.Context) ([]lanes.Lane, error)
}

// remote is the real Siblings: calls over their sockets.
type remote struct{ users, auth, ipam, lanes, tor *rpc.Conn }

func (r remote) Account(ctx context.Context, user id.User) (*users.Account, error) {
	return users.Standing.Call(ctx, r.users, &users.Ref{User: string(user)})
}

func (r remote) Device(ctx context.Context, user id.User, device id.Device) (*auth.Device, error) {
	return auth.DeviceCheck.Call(ctx, r.auth, &auth.CheckRequest{Device: device, User: user})
}

func (r remote) AddUsage(ctx context.Context, seq int64, usage []users.Usage) error {
	req := &users.UsageRequest{}
	req.Body.Seq, req.Body.Usage = seq, usage
	_, err := users.AddUsage.Call(ctx, r.users, req)
	return err
}

func (r remote) Acquire(ctx context.Context, device id.Device, user id.User) (*ipam.Lease, error) {
	req := &ipam.AcquireRequest{Device: device}
	req.Body.User = user
	return ipam.Acquire.Call(ctx, r.ipam, req)
}

func (r remote) Release(ctx context.Context, device id.Device) error {
	_, err := ipam.Release.Call(ctx, r.ipam, &ipam.LeaseRef{Device: device})
	return err
}

func (r remote) Leases(ctx context.Context, user id.User) ([]ipam.Lease, error) {
	const page = 5000
	var all []ipam.Lease
	req := &ipam.ListRequest{User: string(user), Limit: page}
	for {
		l, err := ipam.Leases.Call(ctx, r.ipam, req)
		if err != nil {
			return nil, err
		}
		all = append(all, l.Items...)
		if l.Next == "" {
			return all, nil
		}
		req.After = l.Next
	}
}

func (r remote) Put(ctx context.Context, p lanes.Peer) (string, error) {
	a, err := lanes.Put.Call(ctx, r.lanes, &lanes.PutRequest{Body: p})
	if err != nil {
		return "", err
	}
	return a.Epoch, nil
}

func (r remote) Remove(ctx context.Context, peers ...lanes.Removal) (*lanes.Removed, error) {
	req := &lanes.RemoveRequest{}
	req.Body.Peers = peers
	return lanes.Remove.Call(ctx, r.lanes, req)
}

func (r remote) Sync(ctx context.Context, peers []lanes.Peer) (*lanes.Synced, error) {
	req := &lanes.SyncRequest{}
	req.Body.Peers = peers
	return lanes.Sync.Call(ctx, r.lanes, req)
}

func (r remote) Stats(ctx context.Context) (*lanes.StatsReply, error) {
	return lanes.Stats.Call(ctx, r.lanes, nil)
}

func (r remote) Epoch(ctx context.Context) (*lanes.EpochReply, error) {
	return lanes.Epoch.Call(ctx, r.lanes, nil)
}

func (r remote) Interfaces(ctx context.Context) ([]lanes.Lane, error) {
	l, err := lanes.List.Call(ctx, r.lanes, nil)
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

func (r remote) TorView(ctx context.Context, user id.User) (*tor.LaneView, error) {
	return tor.GetLaneView.Call(ctx, r.tor, &tor.LaneViewRequest{User: string(user)})
}
