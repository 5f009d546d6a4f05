package fakevpnd

import (
	"context"
	"errors"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/rpc"
)

// forwardLogs has a real log service answer, as control does.
func forwardLogs(s *rpc.Server, c *rpc.Conn) {
	rpc.Forward(s, logs.Query, c)
	rpc.Forward(s, logs.Count, c)
	rpc.Forward(s, logs.Stats, c)
	rpc.Forward(s, logs.Top, c)
	rpc.Forward(s, logs.Histogram, c)
	rpc.Forward(s, logs.Fields, c)
	rpc.Forward(s, logs.Services, c)
	rpc.Forward(s, logs.ListSaved, c)
	rpc.Forward(s, logs.Save, c)
	rpc.Forward(s, logs.RunSaved, c)
	rpc.Forward(s, logs.DeleteSaved, c)
	rpc.Forward(s, logs.Purge, c)
	rpc.Forward(s, logs.GetStatus, c)
	forwardStream(s, logs.Follow, c)
	forwardStream(s, logs.Export, c)
}

func forwardStream[Req, Event any](s *rpc.Server, op rpc.Stream[Req, Event], c *rpc.Conn) {
	rpc.HandleStream(s, op, func(ctx context.Context, req *Req, send func(Event) error) error {
		err := op.Follow(ctx, c, req, send)
		if errors.Is(err, rpc.ErrEnded) {
			return nil
		}
		return err
	})
}
