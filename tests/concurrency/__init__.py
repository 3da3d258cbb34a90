"""What happens where several processes write at once: on stock Kinto servers, and on ours."""
