"""What happens outside of lanes: scheduled tasks become due, callbacks are sent."""
