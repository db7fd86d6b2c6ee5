"""What ran: facts about a captured program, without torch."""
