package torctl

import "context"

// ConsensusValidAfter tells which consensus tor has, as the text of its
// valid-after time; empty before it has one.
func (c *Client) ConsensusValidAfter(ctx context.Context) (string, error) {
	v, err := c.getInfo(ctx, "consensus/valid-after")
	if err != nil {
		return "", err
	}
	return v[0], nil
}
